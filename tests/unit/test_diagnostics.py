"""Diagnostics are measured on the real toy model: pairs under one seed, exact mixtures, clouds around their anchors."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.train

import torch  # noqa: E402

from ngrpo.data.datasets import make_dataset  # noqa: E402
from ngrpo.errors import UserError  # noqa: E402
from ngrpo.files import read_json  # noqa: E402
from ngrpo.method.neighbor_table import Table  # noqa: E402
from ngrpo.stages.base_models import make_model  # noqa: E402
from ngrpo.stages.mixing_diagnostics import DRAWS, SHOWN, diagnostics, nearest_rows, neighbors_in_words  # noqa: E402
from ngrpo.stages.neighbor_tables import embedding, make_table  # noqa: E402
from ngrpo.study.expand import load_study  # noqa: E402
from ngrpo.study.specs import DatasetSpec, ModelSpec, NeighborSpec, RunSpec  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    """The toy study's own run, on a toy model that was trained for moments: (spec, options, written JSON)."""
    folder, study = tmp_path_factory.mktemp("diagnostics"), load_study(ROOT / "config", "toy")
    spec: RunSpec = study.runs[study.mixing_runs[0]]
    source = spec.model.model.source.model_copy(update={"steps": 60})
    model = ModelSpec(id="toy", model=spec.model.model.model_copy(update={"source": source}))
    problems: DatasetSpec = spec.validation
    make_model(model, folder / "model")
    make_dataset(problems, folder / "problems.parquet")
    make_table(
        NeighborSpec(model=model, metric="cosine", k=3), model=folder / "model", out=folder / "table.safetensors"
    )
    options = {
        "model": folder / "model",
        "neighbors": folder / "table.safetensors",
        "problems": folder / "problems.parquet",
    }
    diagnostics(spec, **options, out=folder / "written.json", count=24)
    return spec, options, read_json(folder / "written.json")


def test_both_responses_agree_up_to_the_first_mixed_step(files) -> None:
    written = files[2]
    assert len(written["examples"]) == 24
    assert any(e["steps"] for e in written["examples"])
    for e in written["examples"]:
        first = min((s["index"] for s in e["steps"]), default=None)
        assert e["apart"] is None or (first is not None and e["apart"] >= first)
        assert e["steps"] or e["without"] == e["mixed"]
        for s in e["steps"]:
            assert s["candidates"][0][0] == e["mixed"][s["index"]]
            assert sum(w for _, w in s["candidates"]) == pytest.approx(1, abs=2e-4)


def test_cosines_are_those_of_the_mixtures(files) -> None:
    from ngrpo.data.prompts import open_tokenizer

    _, options, written = files
    E, ids = embedding(options["model"]), open_tokenizer(options["model"]).get_vocab()
    for s in (s for e in written["examples"] for s in e["steps"]):
        names, weights = zip(*s["candidates"], strict=True)
        rows = E[[ids[n] for n in names]].float()
        fed = (torch.tensor(weights)[:, None] * rows).sum(0)
        assert torch.cosine_similarity(fed, rows[0], dim=0).item() == pytest.approx(s["cosine"], abs=1e-3)


def test_clouds_lie_around_at_most_ten_tokens(files) -> None:
    written = files[2]
    assert 1 <= len(written["tokens"]) <= 10
    assert len({t["token"] for t in written["tokens"]}) == len(written["tokens"])
    for token in written["tokens"]:
        assert len(token["noise"]) == len(token["noise_cosines"]) == DRAWS
        assert 1 <= len(token["mixtures"]) == len(token["mixture_cosines"]) <= DRAWS
        assert all(0.5 < c < 1 for c in token["noise_cosines"])


def test_a_flip_is_a_vector_whose_nearest_token_is_another_one(files) -> None:
    from ngrpo.data.prompts import open_tokenizer

    _, options, written = files
    E, ids = embedding(options["model"]).float(), open_tokenizer(options["model"]).get_vocab()
    for token in written["tokens"]:
        for kind in ("noise", "mixture"):
            names = [name for name, *_ in token[f"{kind}_nearest"]]
            assert token[f"{kind}_flips"] == pytest.approx(
                sum(n != token["token"] for n in names) / len(names), abs=1e-6
            )
        own = torch.nn.functional.normalize(E, dim=-1) @ torch.nn.functional.normalize(E[ids[token["token"]]], dim=0)
        assert own.argmax() == ids[token["token"]]
    vectors = E[[3, 5]] * 2.0  # at a token itself, that one is the nearest: of another token's anchor, a flip
    assert nearest_rows(vectors, 3, E) == [3, 5]


def test_neighbors_in_words_are_the_table_s_from_the_nearest_to_the_farthest(files) -> None:
    from ngrpo.data.prompts import open_tokenizer

    _, options, written = files
    tokenizer = open_tokenizer(options["model"])
    E, ids = embedding(options["model"]).float(), Table.load(options["neighbors"]).ids.long()
    shown, vocabulary = written["neighbors"], tokenizer.get_vocab()
    means = []
    for example in shown["examples"]:
        token = vocabulary[example["token"]]
        assert [vocabulary[name] for name, _ in example["neighbors"]] == ids[token, 1:].tolist()
        cosines = torch.cosine_similarity(E[ids[token, 1:]], E[token][None], dim=-1).tolist()
        assert [cosine for _, cosine in example["neighbors"]] == pytest.approx(cosines, abs=1e-4)
        means.append(sum(cosines) / len(cosines))
    assert len(means) == SHOWN
    assert means == sorted(means, reverse=True)
    low, *_, high = shown["quantiles"]
    assert means[-1] <= low <= high <= means[0]
    alone = neighbors_in_words(ids[:, :1], E, str)  # k = 1: nobody has neighbors
    assert alone == {"tokens": 0, "quantiles": [], "examples": []}
    parts = neighbors_in_words(ids, E, lambda token: "\ufffd" if token == 3 else f"t{token}")
    assert "\ufffd" not in [example["token"] for example in parts["examples"]]


def test_the_same_study_gives_the_same_file(files, tmp_path: Path) -> None:
    spec, options, written = files
    diagnostics(spec, **options, out=tmp_path / "again.json", count=24)
    assert read_json(tmp_path / "again.json") == written
    other = spec.model_copy(update={"seed": spec.seed + 1})
    diagnostics(other, **options, out=tmp_path / "other.json", count=24)
    assert read_json(tmp_path / "other.json")["examples"] != written["examples"]


def test_a_run_that_mixes_nothing_is_refused(files, tmp_path: Path) -> None:
    _, options, _ = files
    study = load_study(ROOT / "config", "toy")
    plain = next(s for s in study.runs.values() if s.exploration.kind == "none")
    with pytest.raises(UserError, match="not by neighbors"):
        diagnostics(plain, **options, out=tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
