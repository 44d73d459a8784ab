"""Every reader of the package takes any file: it reads it, or one UserError names file, line or key."""

import copy
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_study import ROOT, make_study

from ngrpo.audit.compliance import compliance
from ngrpo.audit.hours import job_times
from ngrpo.audit.provenance import data_cards
from ngrpo.audit.status import read_grades, run_state
from ngrpo.data.datasets import read_problems
from ngrpo.errors import UserError
from ngrpo.files import read_json
from ngrpo.foreign import parse_json, read_parquet, read_text
from ngrpo.planning.costs import Costs
from ngrpo.report.diagnostics import examples, read_diagnostics, totals
from ngrpo.report.finished import problem_text, table_text
from ngrpo.report.paper_tables import beside
from ngrpo.report.tables import analyze, read_table
from ngrpo.study.batches import decide_batches
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values
from ngrpo.study.predicates import read_claims
from ngrpo.study.specs import RunSpec, read_spec
from ngrpo.study.spent import evaluation_spent, run_spent

RUN, BENCHMARK = "ngrpo-toy", "toy-held-out"
EVALUATION = f"{RUN}/standard/{BENCHMARK}"
Reader = Callable[[Study, Results], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Results]:
    """A synthetic study with its main table, problems and samples."""
    folder = tmp_path_factory.mktemp("study")
    study, results = make_study(folder, problems=3), Results(folder / "toy")
    shutil.copy(ROOT / "config" / "costs.yaml", folder / "config")
    files = results.evaluation(EVALUATION)
    grades = pd.read_parquet(files.grades)
    answers = grades[["problem_id", "sample"]].assign(text="so 7", finish_reason="stop", tokens=3)
    answers.to_parquet(files.samples, index=False)
    ids = sorted(set(grades["problem_id"]))
    problems = [
        {"id": i, "problem": "3+4", "answer": "7", "solution": None, "kind": "math", "order": None} for i in ids
    ]
    pd.DataFrame(problems).to_parquet(results.dataset(BENCHMARK).problems, index=False)
    card = read_json(files.samples_card) | {"tokens": 3 * len(grades)}
    files.samples_card.write_text(json.dumps(card))
    files.samples_time.write_text(json.dumps({"seconds": 3.5, "devices": 1, "gpu": False, "hardware": {"kind": "x"}}))
    metrics = results.run(RUN).metrics
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
    decide_batches(study, results)
    analyze("main", study, results, results.table("main"))
    return study, results


@pytest.fixture
def study(made: tuple[Study, Results], tmp_path: Path) -> tuple[Study, Results]:
    """The study, its files to be spoiled."""
    shutil.copytree(made[1].root, tmp_path / "toy")
    return made[0], Results(tmp_path / "toy")


def the_run(study: Study, results: Results) -> None:
    """All that is made of a run's files."""
    state = run_state(study, results, RUN)
    for column in ("parity_max", "seconds", "mixing_share", "mixing_cosine_min"):
        state.over(column, "max")
    compliance(study, results, [state], None)
    run_spent(results.run(RUN))
    job_times(study, results)


def the_samples(study: Study, results: Results) -> None:
    read_grades(study, results, EVALUATION)
    evaluation_spent(results.evaluation(EVALUATION))
    job_times(study, results)


def the_cards(study: Study, results: Results) -> None:
    data_cards(study, results)
    read_grades(study, results, EVALUATION)
    Costs(study, results).problems(study.evaluations[EVALUATION])


def the_diagnostics(study: Study, results: Results) -> None:
    for run in read_diagnostics(study, results):
        if run.data:
            totals(run.data)
            examples(run.data, 3)


def the_table(study: Study, results: Results) -> None:
    table_text(results, "main")
    beside(read_table(results.table("main")), study, results, None)


def the_shown(study: Study, results: Results) -> None:
    problem_text(study, results, EVALUATION, "toy-held-out-0001")


READERS: dict[str, tuple[Callable[[Results], Path], Reader]] = {
    "metrics": (lambda r: r.run(RUN).metrics, the_run),
    "verl settings": (lambda r: r.run(RUN).verl_settings, the_run),
    "hardware": (lambda r: r.run(RUN).hardware, the_run),
    "model card": (lambda r: r.run(RUN).model_card, the_run),
    "run spec": (lambda r: r.run(RUN).spec, lambda _, r: read_spec(r.run(RUN).spec, RunSpec)),
    "samples card": (lambda r: r.evaluation(EVALUATION).samples_card, the_samples),
    "samples time": (lambda r: r.evaluation(EVALUATION).samples_time, the_samples),
    "data card": (lambda r: r.dataset(BENCHMARK).card, the_cards),
    "diagnostics": (lambda r: r.diagnostics(RUN), the_diagnostics),
    "batches": (lambda r: r.batches, decide_batches),
    "grades": (lambda r: r.evaluation(EVALUATION).grades, lambda s, r: read_grades(s, r, EVALUATION)),
    "shown grades": (lambda r: r.evaluation(EVALUATION).grades, the_shown),
    "samples": (lambda r: r.evaluation(EVALUATION).samples, the_shown),
    "problems": (lambda r: r.dataset(BENCHMARK).problems, lambda _, r: read_problems(r.dataset(BENCHMARK).problems)),
    "table": (lambda r: r.table("main"), the_table),
}
BYTES = {
    "empty": b"",
    "null": b"null",
    "a list": b"[1]",
    "a word": b'"x"',
    "half": b'{"spec": ',
    "Latin-1": '{"spec": "é"}'.encode("latin-1"),
    "nested": b"[" * 100_000,
    "a long number": b'{"spec": ' + b"9" * 5000 + b"}",
    "half a pair": b'{"spec": "\\ud800"}',
    "zeros": bytes(100),
    "a control": b'{"spec": "\x1b[2J"}',
    "another object": b"{}",
}
VALUES: tuple[Any, ...] = (None, {}, "x", -1, 10**30, [None], float("nan"))
MOST_CASES = 100


def spoiled_values(value: Any) -> Iterator[Any]:
    """A JSON value with one thing in it left out, or replaced by something of another kind, down to its third level."""

    def places(inner: Any, way: tuple) -> Iterator[tuple]:
        items = inner.items() if isinstance(inner, dict) else enumerate(inner[:1]) if isinstance(inner, list) else ()
        for key, below in list(items)[:10]:
            yield (*way, key)
            if len(way) < 2:
                yield from places(below, (*way, key))

    for way in places(value, ()):
        for replacement in (*VALUES, "left out"):
            spoiled = copy.deepcopy(value)
            target = spoiled
            for key in way[:-1]:
                target = target[key]
            if replacement == "left out":
                del target[way[-1]]
            else:
                target[way[-1]] = replacement
            yield spoiled


def spoiled_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(what is wrong, bytes) of a file spoiled in every way."""
    content = path.read_bytes()
    yield from BYTES.items()
    yield "cut", content[: len(content) // 2]
    if path.suffix == ".json":
        values = list(spoiled_values(json.loads(content)))
        for value in values[:: 1 + len(values) // MOST_CASES]:
            yield json.dumps(value)[:200], json.dumps(value).encode()
    elif path.suffix == ".jsonl":
        first, *others = content.split(b"\n")
        for name, line in BYTES.items():
            yield f"a line: {name}", b"\n".join([first, line, *others])
        for value in spoiled_values(json.loads(first)):
            yield json.dumps(value), b"\n".join([json.dumps(value).encode(), *others])


def spoiled_tables(path: Path) -> Iterator[tuple[str, pa.Table]]:
    """(what is wrong, table) of a parquet file with each column gone, of another type, with nulls; with no rows."""
    table = pq.read_table(path)
    yield "no rows", table.slice(0, 0)
    yield "other columns", pa.table({"x": [1]})
    for name in table.column_names:
        at, rows = table.column_names.index(name), table.num_rows
        yield f"without {name}", table.drop([name])
        for values in ([None] * rows, [1] * rows, ["x\x1b"] * rows, [1e300] * rows, [b"\xff"] * rows, [[1]] * rows,
                       [{"a": 1}] * rows, [True] * rows, [None, *["x"] * (rows - 1)]):  # fmt: skip
            yield f"{name}: {values[0]!r}, {values[-1]!r}", table.set_column(at, name, pa.array(values))


def check(read: Reader, study: Study, results: Results, path: Path, what: str) -> bool:
    """Read a spoiled file: any other error than one UserError fails. Whether it was refused."""
    try:
        read(study, results)
    except UserError as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(f"{path.name}, {what}: {error!r}") from error
    else:
        return False
    assert "\x1b" not in message
    assert len(message) < 3000
    return True


@pytest.mark.parametrize("name", READERS)
def test_a_spoiled_file_is_read_or_named(name: str, study: tuple[Study, Results]) -> None:
    of, read = READERS[name]
    path = of(study[1])
    whole = path.read_bytes()
    assert not check(read, *study, path, "whole")
    for what, content in spoiled_files(path):
        path.write_bytes(content)
        check(read, *study, path, what)
    path.write_bytes(whole)
    if path.suffix == ".parquet":
        for what, table in list(spoiled_tables(path)):
            pq.write_table(table, path)
            check(read, *study, path, what)
    path.unlink()
    path.mkdir()
    check(read, *study, path, "a folder")


def test_a_reader_that_believes_a_file_would_be_seen(study: tuple[Study, Results]) -> None:
    path = study[1].run(RUN).model_card
    path.write_text("[]")
    with pytest.raises(AssertionError, match=r"ngrpo.json, a list: TypeError"):
        check(lambda _, r: json.loads(r.run(RUN).model_card.read_text())["spec"], *study, path, "a list")


CONFIGURATION: dict[str, Callable[[Path], object]] = {
    "study.yaml": lambda config: load_study(config, "toy"),
    "scales/toy.yaml": lambda config: load_study(config, "toy"),
    "claims.yaml": read_claims,
    "paper_values.yaml": read_paper_values,
}


@pytest.mark.parametrize("name", CONFIGURATION)
def test_a_spoiled_configuration_is_named(name: str, made: tuple[Study, Results], tmp_path: Path) -> None:
    assert made[0].folder is not None
    config = shutil.copytree(made[0].folder, tmp_path / "config")
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
    )
    texts = [bomb, "a: &a [*a]", "? [1]\n: 3", "a: 2001-99-99", "[" * 3000, "- 1", "a: {<<: [1]}", "a: *b", "a\tb: c"]
    for content in (*BYTES.values(), *(text.encode() for text in texts)):
        (config / name).write_bytes(content)
        with pytest.raises(UserError) as refused:
            CONFIGURATION[name](config)
        assert name in str(refused.value)
        assert len(str(refused.value)) < 3000


def test_a_message_names_the_line_and_cuts_the_value(study: tuple[Study, Results]) -> None:
    path = study[1].run(RUN).metrics
    path.write_text('{"step": 1}\n{"step": 2, "reward/mean": "' + "x" * 10_000 + '"}\n')
    with pytest.raises(UserError, match=r"(?s)not a number: 'x{1,250}.*metrics.jsonl, line 2, key 'reward/mean'"):
        run_state(*study, RUN)
    path.write_bytes('{"step": 1}\n{"step": 2, "é": 1}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"(?s)not UTF-8 text \(byte 0xe9\).*metrics.jsonl, line 2.*save it as UTF-8"):
        run_state(*study, RUN)


def test_pipes_devices_and_oversized_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="no regular file"):
            read_text(path)
        with pytest.raises(UserError, match="no regular file"):
            read_parquet(path)
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="more than such a file has"):
        read_text(tmp_path / "huge")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]
    assert parse_json('"\\ud83d\\ude00"', "a whole pair") == "\U0001f600"


def test_a_parquet_file_that_unpacks_to_far_more_than_its_size_is_refused_before_it_does(tmp_path: Path) -> None:
    bomb, fair = tmp_path / "bomb.parquet", tmp_path / "fair.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 500_000, pa.int32()), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"id": text}), bomb, compression="zstd")
    pq.write_table(pa.table({"id": ["x" * 1000] * 20_000}), fair, compression="zstd")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="unpacks to more than"):
        read_parquet(bomb, ["id"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"
    assert bomb.stat().st_size < 10_000
    assert read_parquet(fair, ["id"]).num_rows == 20_000
