"""A sampling job's rule doesn't depend on which tables are asked for: what was decided once stays."""

import shutil
from pathlib import Path

import pytest
import yaml
from synthetic_study import ROOT

from ngrpo.planning.snakemake_dag import snakemake_dag
from ngrpo.study.batches import Batch, batches, decide_batches
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

ROWS = [{"label": "N-GRPO", "method": "ngrpo"}]
BOTH = {"title": "both benchmarks", "rows": ROWS}
ONE = {"title": "one benchmark", "benchmarks": ["other"], "rows": [{"label": "GRPO", "method": "grpo"}, *ROWS]}


@pytest.fixture
def with_tables(tmp_path: Path):
    """with_tables("both", …): the toy study with a second benchmark, `other`, and these tables."""
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config", config)
    study = yaml.safe_load((config / "study.yaml").read_text())
    study["tables"].update(both=BOTH, one=ONE)
    (config / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    size = yaml.safe_load((config / "scales" / "toy.yaml").read_text())
    source = {"kind": "toy", "count": 4, "held_out": True, "seed": 14}
    size["datasets"]["other"] = {"source": source, "instruction": ""}
    size.update(benchmarks=["toy-held-out", "other"], demo=None)

    def load(*tables: str) -> Study:
        (config / "scales" / "toy.yaml").write_text(yaml.safe_dump({**size, "tables": list(tables)}, sort_keys=False))
        return load_study(config, "toy")

    return load


def names(study: Study, results: Results) -> set[str]:
    """The rules of all jobs that Snakemake has for this study."""
    with snakemake_dag(study, results, ("all",)) as dag:
        return {job.rule.name for job in dag.jobs}


def test_a_queued_jobs_rule_is_still_there_when_a_table_is_added(with_tables, tmp_path: Path) -> None:
    before = names(with_tables("both"), Results(tmp_path / "toy"))
    assert "sample-toy-held-out+other" in before
    after = names(with_tables("one", "both"), Results(tmp_path / "toy"))
    assert before <= after
    assert "sample-other" in after, "what only the new table needs is a job of its own"
    # the control: where nothing was decided before, the new table splits that policy's job
    assert not before <= names(with_tables("one", "both"), Results(tmp_path / "elsewhere" / "toy"))


def test_what_was_decided_stays_whatever_tables_come_and_go(with_tables, tmp_path: Path) -> None:
    results = Results(tmp_path / "toy")
    both = ("ngrpo-toy/standard", ("toy-held-out", "other"))

    def decided(*tables: str) -> set[tuple[str, tuple[str, ...]]]:
        return {(b.system, b.benchmarks) for b in decide_batches(with_tables(*tables), results)}

    assert decided("both") == {both}
    assert decided("both", "one") == {both, ("grpo-toy/standard", ("other",))}
    assert decided("one") == {("ngrpo-toy/standard", ("other",)), ("grpo-toy/standard", ("other",))}
    assert decided("both", "one") == {both, ("grpo-toy/standard", ("other",))}
    fresh = {(b.system, b.benchmarks) for b in batches(with_tables("both", "one"), {})}
    assert fresh == {("ngrpo-toy/standard", (name,)) for name in both[1]} | {("grpo-toy/standard", ("other",))}


def test_reading_the_study_again_writes_nothing(with_tables, tmp_path: Path) -> None:
    results = Results(tmp_path / "toy")
    decide_batches(with_tables("both"), results)
    stamp = results.batches.stat().st_mtime_ns
    decide_batches(with_tables("both"), results)
    assert results.batches.stat().st_mtime_ns == stamp


def test_a_batch_of_many_benchmarks_has_a_name_that_files_can_have() -> None:
    names = tuple(f"benchmark-number-{i}" for i in range(30))
    many, others = Batch("base/standard", names), Batch("base/standard", (*names[:-1], "another"))
    assert max(len(batch.rule) for batch in (many, others)) < 150
    assert many.rule != others.rule
    assert Batch("base/standard", ("a", "b")).rule == "sample-a+b"
