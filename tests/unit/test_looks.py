"""The record of looks at claims loses none: two processes, a kill, a file that is damaged or can't be written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ngrpo.claims.looks import one_at_a_time, read_looks, record_looks
from ngrpo.errors import UserError
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.statistics.multiplicity import Look
from ngrpo.study.layout import Results

RECORD = """
import os, signal, sys
from pathlib import Path
from ngrpo.claims.looks import one_at_a_time, record_looks
from ngrpo.statistics.multiplicity import Look
from ngrpo.study.layout import Results
results, name, how = Results(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
if how == "killed":
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # its file is whole, and not in its place yet
with one_at_a_time(results):
    record_looks(results, {name: {"on these benchmarks": {"for": Look(("a", "b"), 0.01)}}})
"""


def seen(name: str, *seeds: str, p: float = 0.02) -> dict:
    return {name: {question: {"for": Look(seeds, p), "against": Look(seeds, 1 - p)} for question in QUESTIONS}}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """One claim was looked at."""
    results = Results(tmp_path / "toy")
    record_looks(results, seen("one", "a", "b"))
    return results


def other(results: Results, name: str, how: str = "whole") -> subprocess.Popen:
    """Another process that looks at a claim."""
    command = [sys.executable, "-u", "-c", RECORD, str(results.root), name, how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_the_later_waits_and_no_look_is_lost(results) -> None:
    with one_at_a_time(results):
        later = other(results, "two")
        assert later.stdout.readline() == f"waiting: another process looks at the claims of {results.root}\n"
        record_looks(results, seen("three", "a"))
        assert set(read_looks(results)) == {"one", "three"}  # it does wait
    assert later.wait(60) == 0
    assert set(read_looks(results)) == {"one", "two", "three"}


def test_a_look_is_added_to_those_that_are_there_by_then(results) -> None:
    record_looks(results, seen("one", "a", "b", "c"))  # another report's, of which the next one knows nothing
    record_looks(results, seen("one", "a", "b", "c", "d", p=0.01))
    looks = read_looks(results)["one"][QUESTIONS[0]]["for"]
    assert [len(look.seeds) for look in looks] == [2, 3, 4]
    before = results.looks.stat().st_mtime_ns
    record_looks(results, seen("one", "a", "b", "c", "d", p=0.01))  # the same data again
    assert results.looks.stat().st_mtime_ns == before


def test_a_process_killed_while_it_writes_leaves_the_record_and_no_lock(results) -> None:
    before = results.looks.read_bytes()
    assert other(results, "two", "killed").wait(60) == -signal.SIGKILL
    assert results.looks.read_bytes() == before
    assert list(results.root.glob(".looks.json.part*"))
    with one_at_a_time(results):
        record_looks(results, seen("three", "a"))
    assert set(read_looks(results)) == {"one", "three"}
    assert not list(results.root.glob(".looks.json.part*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "not readable as JSON"),
        (lambda _: "", "not readable as JSON"),
        (lambda _: "[]", "valid dictionary"),
        (lambda text: text.replace("0.02", "NaN"), "finite number"),
        (lambda text: text.replace("0.02", "-0.02"), "greater than or equal to 0"),
        (lambda text: text.replace("0.02", "1e99"), "less than or equal to 1"),
        (lambda text: text.replace('"p"', '"q"'), "q|p"),
        (lambda text: text.replace("on these benchmarks", "on this one"), "on this one|on these benchmarks"),
        (lambda text: text.replace('"against"', '"beside"'), "for"),
        (lambda text: text.replace('"a",', "").replace('"b"', ""), "at least 1 item"),
        (lambda text: text.replace('"a"', "1"), "valid string"),
    ],
)
def test_a_damaged_or_foreign_record_is_named_and_left_as_it_is(results, change, message: str) -> None:
    results.looks.write_text(change(results.looks.read_text()))
    before = results.looks.read_bytes()
    with pytest.raises(UserError, match=message) as error:
        record_looks(results, seen("two", "a"))
    assert "the record of looks at claims can't be used" in str(error.value)
    assert f"where: {results.looks}" in str(error.value)
    assert "do:    restore it from a copy; without it" in str(error.value)
    assert results.looks.read_bytes() == before


def test_looks_that_arent_of_this_study_stay(results) -> None:
    saved = json.loads(results.looks.read_text())
    results.looks.write_text(json.dumps({**saved, "a-claim-that-was-renamed": saved["one"]}))
    record_looks(results, seen("two", "a"))
    assert set(read_looks(results)) == {"one", "two", "a-claim-that-was-renamed"}


def test_a_folder_that_cant_be_written_is_read_and_the_record_says_so() -> None:
    folder = Path(tempfile.mkdtemp())  # tmp_path is its owner's alone
    try:
        results = Results(folder / "toy")
        record_looks(results, seen("one", "a"))
        for path, mode in ((folder, 0o755), (results.root, 0o555), (results.looks, 0o444)):
            path.chmod(mode)
        child = os.fork()
        if not child:
            if os.getuid() == 0:
                os.setuid(65534)  # whom modes stop
            with one_at_a_time(results):
                code = 1 if set(read_looks(results)) != {"one"} else 2
                try:
                    record_looks(results, seen("two", "a"))
                except OSError as e:
                    code = 0 if str(results.looks) in str(e.filename) else 3
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        results.root.chmod(0o755)
        shutil.rmtree(folder)
