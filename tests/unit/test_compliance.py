"""Every run's required values beside what it wrote down: all as required in a sound study, each change found."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from synthetic_study import make_study

from ngrpo.audit.compliance import ComplianceCheck, compliance, verl_settings
from ngrpo.audit.status import run_state
from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values

RUN = "ngrpo-toy"


def checked(study: Study, results: Results) -> list[ComplianceCheck]:
    runs = [run_state(study, results, run) for run in study.runs]
    return compliance(study, results, runs, read_paper_values(study.folder))


def off(study: Study, results: Results) -> set[tuple[str, str]]:
    return {(check.run, check.what) for check in checked(study, results) if check.state == "off"}


@pytest.fixture
def toy(tmp_path: Path):
    return make_study(tmp_path, problems=2), Results(tmp_path / "toy")


@pytest.fixture
def paper(tmp_path: Path):
    return make_study(tmp_path, "paper", problems=2), Results(tmp_path / "paper")


def test_a_sound_study_has_nothing_off_and_every_row_names_its_file(toy) -> None:
    study, results = toy
    checks = checked(study, results)
    assert {check.state for check in checks} == {"ok"}
    assert {check.run for check in checks} == set(study.runs)
    for check in checks:
        assert (results.root / check.file).exists(), check
        assert all(asdict(check)[key] for key in ("run", "what", "by", "file"))


def test_at_paper_scale_the_papers_values_are_required_too(paper) -> None:
    checks = checked(*paper)
    required = {check.what: check for check in checks if check.by.startswith("paper")}
    assert {check.state for check in checks} == {"ok"}
    assert required["learning rate"].required == 1e-6
    assert required["updates a batch"].required == 4
    assert required["n, samples a problem, all 9"].required == 32


@pytest.mark.parametrize("key", verl_settings(load_study(Path("config"), "toy").runs[RUN]))
def test_every_setting_of_verl_is_checked(toy, key: str) -> None:
    study, results = toy
    file = results.run(RUN).verl_settings
    settings = read_json(file)
    *path, last = key.split(".")
    part = settings
    for name in path:
        part = part[name]
    changed = {bool: lambda v: not v, str: lambda v: f"{v}x"}.get(type(part[last]), lambda v: v * 1.001 + 1e-9)
    part[last] = changed(part[last])
    write_json(file, settings)
    assert off(study, results) == {(RUN, key)}
    del part[last]
    write_json(file, settings)
    assert off(study, results) == {(RUN, key)}


def rewritten(file: Path, change) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    change(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda rows: rows.pop(50), "steps logged, each once"),
        (
            lambda rows: [r.update({"policy/learning_rate": 3e-4}) for r in rows],
            "learning rate of the updates, highest",
        ),
        (lambda rows: rows[3].update({"response/length": 99.0}), "mean response length, highest"),
        (lambda rows: rows[3].update({"parity/max": 0.2}), "|rollout − replayed| log-prob, highest"),
        (lambda rows: [r.update({"mixing/share": 0.12}) for r in rows], "share of mixed steps"),
        (lambda rows: rows[19].update({"validation/score": 0.999}), "validation of the chosen step, the highest"),
    ],
)
def test_what_the_log_contradicts_is_off(toy, change, what: str) -> None:
    study, results = toy
    rewritten(results.run(RUN).metrics, change)
    assert off(study, results) == {(RUN, what)}


def test_a_run_that_should_not_mix_and_did_is_off(toy) -> None:
    study, results = toy
    rewritten(results.run("grpo-toy").metrics, lambda rows: rows[5].update({"mixing/share": 0.01}))
    assert off(study, results) == {("grpo-toy", "share of mixed steps")}


def test_a_spec_file_of_other_values_is_off(toy) -> None:
    study, results = toy
    file = results.run(RUN).spec
    write_json(file, {**read_json(file), "seed": 9})
    assert off(study, results) == {(RUN, "spec on file (its digest)")}


def test_what_wasnt_recorded_is_neither_right_nor_wrong(toy) -> None:
    study, results = toy
    results.run(RUN).verl_settings.unlink()
    states = {(c.run, c.what): c.state for c in checked(study, results)}
    assert states[RUN, "verl’s settings"] == "not recorded"
    assert set(states.values()) == {"ok", "not recorded"}
    results.run(RUN).verl_settings.write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        checked(study, results)


def test_a_run_that_hasnt_started_isnt_checked(toy) -> None:
    study, results = toy
    files = results.run(RUN)
    for path in (files.metrics, files.verl_settings, files.model_card):
        path.unlink()
    assert {check.run for check in checked(study, results)} == {"grpo-toy"}


def changed_study(paper, **changes) -> tuple[Study, Results]:
    study, results = paper
    file = study.folder / "study.yaml"
    value = yaml.safe_load(file.read_text())
    value["methods"]["ngrpo"].update(changes)
    file.write_text(yaml.safe_dump(value, allow_unicode=True))
    return load_study(study.folder, "paper"), results


def test_a_departure_from_the_paper_is_off_unless_its_method_declares_it(paper) -> None:
    study, results = paper
    size = study.folder / "scales" / "paper.yaml"
    size.write_text(size.read_text().replace("learning_rate: 1.0e-06", "learning_rate: 5.0e-06"))
    other = load_study(study.folder, "paper")
    assert ("ngrpo-r1-qwen-1.5b", "learning rate") in off(other, results)


def test_a_declared_departure_is_told_apart(paper) -> None:
    study, results = changed_study(paper, training={"learning_rate": 2e-6}, fidelity="release")
    states = {c.what: c.state for c in checked(study, results) if c.run == "ngrpo-r1-qwen-1.5b" and "paper" in c.by}
    assert states["learning rate"] == "declared"
    assert states["τ, rollout temperature"] == "declared"
    assert states["responses a prompt, G"] == "ok"
    assert "off" not in states.values()
