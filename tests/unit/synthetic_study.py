"""A finished study made of nothing: files of the real schemas, with numbers drawn from known chances. For tests of
analysis, figures and report."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from ngrpo.audit.compliance import verl_settings
from ngrpo.files import write_json
from ngrpo.study.cards import id_digest
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.run_log import LOGGED, planned_steps
from ngrpo.study.specs import keep_spec

ROOT = Path(__file__).resolve().parents[2]
TRAINING_PROBLEMS = 4093
CHANCES = {"Base": 0.5, "GRPO": 0.85, "N-GRPO": 0.86}

STEP = {"index": 1, "candidates": [["c0", 0.75], ["c1", 0.25]], "cosine": 0.97}
EXAMPLE = {
    "problem_id": "00007",
    "problem": "1+2",
    "without": ["a", "b"],
    "mixed": ["a", "c0", "d"],
    "apart": 1,
    "steps": [STEP],
}
DIAGNOSTICS = {
    "spec": "0" * 12,
    "model": "toy",
    "rho": 0.1,
    "k": 2,
    "metric": "cosine",
    "sigma": 0.02,
    "explained": [0.5, 0.25],
    "examples": [EXAMPLE],
    "tokens": [
        {
            "token": name,
            "at": [x, 0.0],
            "mixtures": [[x + 0.1, 0.1]],
            "mixture_cosines": [0.97],
            "mixture_flips": 0.0,
            "noise": [[x, 0.5], [x, -0.5]],
            "noise_cosines": [0.9, 0.8],
            "noise_nearest": [["other", 0.2, 0.3], [name, x, 0.0]],
            "noise_flips": flips,
        }
        for name, x, flips in (("$a", 0.0, 0.5), (" ", 1.0, 0.25))
    ],
    "neighbors": {
        "tokens": 25,
        "quantiles": [0.1, 0.25, 0.5, 0.75, 0.9],
        "examples": [{"token": " seven", "neighbors": [["7", 0.8125]]}, {"token": "<b>", "neighbors": [["+", 0.125]]}],
    },
}
"""What `ngrpo diagnostics` writes, small."""
HOSTILE_ANSWER = '<script>alert(1)</script>" onfocus=x \x1b[31m'


def make_study(
    results: Path,
    scale: str = "toy",
    problems: int = 24,
    seed: int = 1,
    tables: tuple[str, ...] | None = ("main",),
    seeds: int = 1,
) -> Study:
    """Write a whole study's results to results/{scale} and return it: the project's own.

    tables: with one model; None: all of the scale with all its models. seeds: training seeds. The configuration lies in
    results/config.
    """
    config, root, rng = results / "config", Results(results / scale), np.random.default_rng(seed)
    (config / "scales").mkdir(parents=True)
    for name in ("study.yaml", "claims.yaml", "paper_values.yaml"):
        (config / name).write_bytes((ROOT / "config" / name).read_bytes())
    for path in (ROOT / "config" / "scales").glob("*.yaml"):
        (config / "scales" / path.name).write_bytes(path.read_bytes())
    size = yaml.safe_load((ROOT / "config" / "scales" / f"{scale}.yaml").read_text())
    if tables is not None:
        size["models"] = dict(list(size["models"].items())[:1])
        size["tables"] = list(tables)
    size.update(targets={}, demo=None, seeds=seeds, table_seeds={})
    (config / "scales" / f"{scale}.yaml").write_text(yaml.safe_dump(size, sort_keys=False))
    study = load_study(config, scale)
    for beside, spec in study.specs().items():
        keep_spec(spec, root.root / beside)
    study.store_specs(root)
    for evaluation, label in {c.evaluation: c.label for table in study.cells.values() for c in table}.items():
        for name in (evaluation, *study.extra_seeds.get(evaluation, ())):
            write_grades(study, root, name, CHANCES.get(label, 0.86), problems, rng)
    for run in study.runs:
        write_run(study, root, run, rng, planned_steps(study.runs[run].training, TRAINING_PROBLEMS))
    for run in study.mixing_runs:
        write_json(root.diagnostics(run), {**DIAGNOSTICS, "spec": study.runs[run].digest})
    for name, spec in study.datasets.items():
        card = {"dataset": name, "spec": spec.digest, "origin": "generated", "left": {}, "without_answer": 0}
        card |= {"rows_in": problems, "rows_out": problems, "sha256": "0" * 64}
        card |= {"asked": id_digest(f"{name}-{i:04d}" for i in range(problems))}
        write_json(root.dataset(name).card, card)
    for model, spec in study.training_data.items():
        left = {"duplicate": ["a", "b"], "in a benchmark": ["c"], "prompt too long": []}
        card = {"dataset": spec.dataset.id, "model": model, "spec": spec.digest, "sha256": "1" * 64}
        card |= {"left": {reason: len(ids) for reason, ids in left.items()}, "left_ids": left}
        card |= {"rows_in": 4096, "rows_out": TRAINING_PROBLEMS, "max_prompt_tokens": spec.max_prompt_tokens}
        card |= {"kept_out_of": sorted(b.id for b in spec.benchmarks)}
        write_json(root.training_data(spec.dataset.id, model).card, card)
    return study


def write_grades(
    study: Study, results: Results, evaluation: str, chance: float, problems: int, rng: np.random.Generator
) -> pd.DataFrame:
    """One evaluation's grades and samples card; each problem has its own chance around `chance`."""
    spec = study.evaluations[evaluation]
    chances = rng.beta(4 * chance, 4 * (1 - chance), problems)
    kinds = np.array(["wrong", "wrong", "wrong", "wrong", "no_answer", "truncated"])
    rows = [
        {
            "problem_id": f"{spec.benchmark.id}-{i:04d}",
            "sample": s,
            "grade": "correct" if rng.random() < p else str(rng.choice(kinds)),
            "extracted": "7",
            "reason": None,
            "spec": spec.digest,
        }
        for i, p in enumerate(chances)
        for s in range(spec.samples)
    ]
    frame = pd.DataFrame(rows)
    silent, wrong = frame["grade"].isin(["no_answer", "truncated"]), frame["grade"] == "wrong"
    frame.loc[wrong, "extracted"] = (8 + frame["sample"] % 5).astype(str)
    frame.loc[silent, "extracted"] = None
    write_samples(results.evaluation(evaluation).samples, frame)
    frame["second_grade"], frame["second_extracted"], frame["second_reason"] = frame["grade"], frame["extracted"], None
    other = frame.index[frame["grade"] == "wrong"][:2]  # on which the second grader disagrees
    frame.loc[other, ["extracted", "second_extracted", "second_grade"]] = [HOSTILE_ANSWER, HOSTILE_ANSWER, "correct"]
    files = results.evaluation(evaluation)
    files.grades.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(files.grades, index=False)
    write_json(
        files.samples_card,
        {"spec": spec.digest, "problems": problems, "sampled": problems, "overlong_prompts": {}, "samples": len(frame)},
    )
    return frame


def write_samples(path: Path, frame: pd.DataFrame) -> None:
    """The responses behind grades (problem_id, sample, grade, extracted, spec): a few words each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = [
        " ".join(["so" if n % 2 else "then", *["and", problem[-2:], "more"][: 1 + n % 3], f"\\boxed{{{answer}}}"])
        for problem, n, answer in zip(frame["problem_id"], frame["sample"], frame["extracted"], strict=True)
    ]
    ended = np.where(frame["grade"] == "truncated", "length", "stop")
    samples = frame[["problem_id", "sample", "spec"]].assign(
        text=said, finish_reason=ended, seed=0, decoding="standard"
    )
    samples["tokens"] = np.array([len(text.split()) for text in said], dtype=np.int32)
    samples.assign(mixed=np.int32(0)).astype({"sample": np.int32}).to_parquet(path, index=False)


def nested(settings: dict) -> dict:
    """Dotted keys as nested mappings."""
    whole: dict = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        part = whole
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    return whole


def write_run(study: Study, results: Results, run: str, rng: np.random.Generator, steps: int = 100) -> None:
    """One finished run: its log, in which the reward rises, and the exported model's card."""
    spec, files = study.runs[run], results.run(run)
    mixes = spec.exploration.kind != "none"
    rho = getattr(spec.exploration, "rho", None)
    share = 0.0 if not mixes else 1.0 if rho is None else rho
    lines, best = [], (0, 0.0)
    for step in range(1, steps + 1):
        way = 1 - np.exp(-step / 30)
        row = {
            "step": step,
            "gradient": 0.3,
            "zero_std": 0.4 * way,
            "identical": 0.02,
            "reward": 0.5 + 0.37 * way + rng.normal(0, 0.03),
            "response_length": 17 + 1.5 * way + rng.normal(0, 0.15),
            "truncated": float(max(0, rng.normal(0.03, 0.01))),
            "entropy": 0.22 * np.exp(-step / 40) + 0.05 + rng.normal(0, 0.005),
            "kl": 0.12 * way + abs(rng.normal(0, 0.006)),
            "parity_max": 10 ** rng.normal(-4.8, 0.15),
            "parity_mean": 2e-7,
            "k3_kl": 1e-8,
            "mixing_share": share if share == 1 else share * (1 + 0.06 * (-1) ** step),
            "seconds": 1.1,
            "rollout_seconds": 0.42 if mixes else 0.4,
            "learning_rate": spec.training.learning_rate * min(1.0, (step - 1) / max(1, spec.training.warmup_steps)),
        }
        if mixes:
            row |= {"mixing_cosine": 0.997 + rng.normal(0, 3e-4), "mixing_cosine_min": 0.93, "mixing_cosine_low": 0.01}
        if step % 20 == 0:
            row["validation"] = 0.5 + 0.36 * way + rng.normal(0, 0.01)
            best = max(best, (step, row["validation"]), key=lambda b: b[1])
        lines.append({LOGGED[k]: float(v) if k != "step" else v for k, v in row.items()})
    write_json(files.verl_settings, nested(verl_settings(spec)))
    write_json(files.hardware, [{"after_step": 0, "kind": "a made-up processor", "torch": "2.6.0"}])
    pd.DataFrame(lines).to_json(files.metrics, orient="records", lines=True)
    write_json(files.model_card, {"spec": spec.digest, "step": best[0], "score": best[1], "steps": steps})
