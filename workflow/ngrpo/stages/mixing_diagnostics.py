"""What mixing does, measured on the base model: trajectories with and without it, and where the fed vectors lie.

Written as JSON by the training environment, so that notebooks show it without torch:

- `examples`: a problem's response under one seed, plain and mixed; every mixed step with its candidates, their weights
  and the cosine of what was fed and its anchor's embedding;
- `tokens`: up to ten anchors with their embeddings, the mixtures that were fed there and as many draws of Gaussian
  noise around them (STHT), all projected on the two main axes of these anchors' embeddings (paper Figure 1); the
  nearest token in E, by cosine, of each noisy vector and of each mixture, and where it lies; the shares of those whose
  nearest token is another one (token flips);
- `neighbors`: how near the whole vocabulary's neighbors are to their tokens, and twelve tokens with theirs, spread
  evenly from the nearest to the farthest, so that nobody chose them.

Departures: the paper doesn't say which ten tokens Figure 1 shows; here they are those that were mixed most often. The
noise's size is STHT's own (0.33 of the root mean square of E). Cosines are of the whole vectors, not of the projection.
"""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from ngrpo.data.datasets import read_problems
from ngrpo.data.prompts import open_tokenizer, prompt_ids
from ngrpo.engines.contract import Request, Sample, Sampling
from ngrpo.engines.transformers.engine import TransformersEngine
from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.method import rng
from ngrpo.method.mixers import WEIGHT_SCALE, GaussianMixer, blend, mixer_from
from ngrpo.study.mixing import settings
from ngrpo.study.specs import RunSpec

TOKENS, DRAWS, SHOWN = 10, 40, 12
MAX_NEW_TOKENS = 256
CHUNK = 4096
"""Tokens whose neighbors' rows are held at once."""
TIE = 1e-6
"""Cosines that differ by less are equal: tokens may share an embedding."""


def diagnostics(spec: RunSpec, *, model: Path, neighbors: Path, problems: Path, out: Path, count: int = 64) -> None:
    """Write what mixing does at a run's start. spec: a run that mixes neighbors; model: its base model's folder.

    count: problems, one pair of responses each. Raises UserError for a run that mixes no neighbors, and where nothing
    was mixed.
    """
    if not spec.exploration.needs_table:
        raise UserError(
            f"this run explores by '{spec.exploration.kind}', not by neighbors", where="ngrpo diagnostics",
            do="name the spec of a run that mixes neighbors",
        )  # fmt: skip
    tokenizer = open_tokenizer(model)
    mixer = mixer_from(settings(spec.exploration, tokenizer.get_vocab()))
    rows = [
        (r["id"], prompt_ids(tokenizer, spec.model.model, spec.validation.dataset, r["problem"]), r["problem"])
        for r in read_problems(problems)[:count]
    ]
    length = min(spec.training.max_response_tokens, MAX_NEW_TOKENS)
    with TransformersEngine(model, neighbors) as engine:
        seeds = [rng.derive_seed(spec.seed, "diagnostics", i) for i, _, _ in rows]
        sampling = Sampling(spec.training.temperature, length)
        plain = [Request(tuple(p), s) for (_, p, _), s in zip(rows, seeds, strict=True)]
        mixed = [Request(r.prompt, r.seed, mixer) for r in plain]
        without, with_ = engine.generate(plain, sampling), engine.generate(mixed, sampling)
        E = engine.model.get_input_embeddings().weight.detach().float()
        ids = engine.table.ids.long()
    names = _names(tokenizer)
    examples = [
        _example(i, problem, a, b, E, names) for (i, _, problem), a, b in zip(rows, without, with_, strict=True)
    ]
    if not any(e["steps"] for e in examples):
        raise UserError("no step was mixed", where="ngrpo diagnostics", do="ask for more problems, or a larger rho")
    about = {"spec": spec.digest, "model": spec.model.id, "rho": mixer.rho, "k": mixer.k, "metric": mixer.metric}
    vocabulary = neighbors_in_words(ids, E, names)
    write_json(out, {**about, "examples": examples, **_clouds(with_, E, names), "neighbors": vocabulary})


def _names(tokenizer):
    """How a token is shown: decoded, with its blanks."""
    return lambda token: tokenizer.decode([int(token)], skip_special_tokens=False)


def _cosines(a: Tensor, b: Tensor) -> list[float]:
    """Cosines of rows (M, d) with rows (M, d) or (1, d)."""
    return [round(c, 6) for c in torch.cosine_similarity(a, b, dim=-1).tolist()]


def nearest_rows(vectors: Tensor, anchor: int, E: Tensor) -> list[int]:
    """For vectors (M, d) the row of E that lies nearest by cosine; the anchor's where no other is nearer by TIE."""
    cosines = torch.nn.functional.normalize(vectors, dim=-1) @ E.T / E.norm(dim=-1).clamp_min(1e-12)
    nearest = cosines.max(-1)
    own = nearest.values <= cosines[:, anchor] + TIE
    return torch.where(own, torch.tensor(anchor), nearest.indices).tolist()


def _share_of_others(rows: list[int], anchor: int) -> float:
    """The share of rows of E that aren't the anchor's."""
    return round(sum(row != anchor for row in rows) / len(rows), 6)


def _fed(sample: Sample, E: Tensor) -> tuple[Tensor, Tensor]:
    """A response's mixtures and their anchors' embeddings: (M, d), (M, d)."""
    ids, weights = torch.from_numpy(sample.record.ids), torch.from_numpy(sample.record.weights)
    return blend(E[ids], weights), E[ids[:, 0]]


def _example(name: str, problem: str, without: Sample, mixed: Sample, E: Tensor, names) -> dict:
    record = mixed.record
    steps = []
    if len(record.index):
        for at, ids, weights, cosine in zip(
            record.index, record.ids, record.weights, _cosines(*_fed(mixed, E)), strict=True
        ):
            pairs = [[names(i), round(int(u) / WEIGHT_SCALE, 4)] for i, u in zip(ids, weights, strict=True)]
            steps.append({"index": int(at), "candidates": pairs, "cosine": cosine})
    both = zip(without.tokens, mixed.tokens, strict=False)
    apart = next((i for i, (a, b) in enumerate(both) if a != b), None)
    if apart is None and len(without.tokens) != len(mixed.tokens):
        apart = min(len(without.tokens), len(mixed.tokens))
    return {
        "problem_id": name,
        "problem": problem,
        "without": [names(t) for t in without.tokens],
        "mixed": [names(t) for t in mixed.tokens],
        "apart": apart,
        "steps": steps,
    }


def neighbors_in_words(ids: Tensor, E: Tensor, names) -> dict:
    """How near a vocabulary's neighbors lie, and SHOWN tokens with theirs, at even ranks from nearest to farthest.

    ids: the neighbor table (V, k), anchor first; E (V, d); names: a token's id → its text. Of tokens that have
    neighbors: their number, and the 5, 25, 50, 75, 95 % quantiles over them of their neighbors' mean cosine. Tokens
    whose text can't be read alone (parts of a character) aren't among the examples. Without neighbors (k = 1) all is
    empty.
    """
    own = torch.arange(len(ids))
    having = own[(ids[:, 1:] != own[:, None]).any(-1)] if ids.shape[1] > 1 else own[:0]
    cosines = [
        torch.cosine_similarity(E[ids[rows, 1:]], E[rows][:, None], dim=-1) for rows in having.split(CHUNK) if len(rows)
    ]
    if not cosines:
        return {"tokens": 0, "quantiles": [], "examples": []}
    each = torch.cat(cosines)  # (tokens, k - 1)
    mean = each.double().mean(-1)
    order = mean.argsort(descending=True, stable=True)
    asked = torch.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().long().tolist()
    examples = []
    for rank in asked:
        readable = (r for r in order[rank:].tolist() if "\ufffd" not in names(having[r]) and names(having[r]).strip())
        if (row := next(readable, None)) is not None:
            others = zip(ids[having[row], 1:].tolist(), each[row].tolist(), strict=True)
            examples.append({"token": names(having[row]), "neighbors": [[names(i), round(c, 4)] for i, c in others]})
    quantiles = torch.quantile(mean, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64))
    return {"tokens": len(having), "quantiles": [round(q, 4) for q in quantiles.tolist()], "examples": examples}


def _clouds(samples: list[Sample], E: Tensor, names) -> dict:
    """Where mixing and Gaussian noise feed, around the anchors that were mixed most often."""
    seen = Counter(int(ids[0]) for s in samples for ids in s.record.ids)
    anchors = [token for token, _ in sorted(seen.items(), key=lambda kv: (-kv[1], kv[0]))[:TOKENS]]
    center = E[anchors].mean(0)
    _, spread, axes = torch.linalg.svd(E[anchors] - center, full_matrices=False)
    sigma = GaussianMixer().factor * E.double().square().mean().sqrt().float()

    def at(vectors: Tensor) -> list[list[float]]:
        return [[round(x, 6) for x in row] for row in ((vectors - center) @ axes[:2].T).tolist()]

    def near(rows: list[int]) -> list[list]:
        return [[names(row), *at(E[row][None])[0]] for row in rows]

    tokens = []
    for anchor in anchors:
        parts = [_fed(s, E)[0][torch.from_numpy(s.record.ids[:, 0] == anchor)] for s in samples if len(s.record.index)]
        mixtures, here = torch.cat(parts)[:DRAWS], E[anchor][None]
        seed = torch.full((DRAWS,), anchor, dtype=torch.int64)
        noisy = here + sigma * rng.normal(seed, torch.arange(DRAWS), E.shape[1])
        of_noise, of_mixtures = nearest_rows(noisy, anchor, E), nearest_rows(mixtures, anchor, E)
        tokens.append(
            {
                "token": names(anchor),
                "at": at(here)[0],
                "mixtures": at(mixtures),
                "mixture_cosines": _cosines(mixtures, here),
                "mixture_nearest": near(of_mixtures),
                "mixture_flips": _share_of_others(of_mixtures, anchor),
                "noise": at(noisy),
                "noise_cosines": _cosines(noisy, here),
                "noise_nearest": near(of_noise),
                "noise_flips": _share_of_others(of_noise, anchor),
            }
        )
    share = spread.square() / spread.square().sum()
    return {"tokens": tokens, "explained": [round(x, 4) for x in share[:2].tolist()], "sigma": round(float(sigma), 6)}
