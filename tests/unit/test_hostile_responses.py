"""Files and options that `ngrpo grade` and `ngrpo show` refuse or survive: devices, loops, endless lines, odd text."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ngrpo.cli import main
from ngrpo.errors import UserError
from ngrpo.grading import GradingLimits, grade_file, grade_samples

ROW = {"id": "1", "response": r"\boxed{27}", "answer": "27.0", "kind": "math"}


def written(path: Path, *rows: dict) -> Path:
    """A file of rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_never_ends_or_leads_back_to_itself_is_no_file_of_responses(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for source, words in ((Path("/dev/zero"), "a device"), (tmp_path / "loop", "link|symbolic")):
        with pytest.raises(UserError, match=words):
            grade_file(source, tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="not to the terminal"):
        grade_file(written(tmp_path / "in.jsonl", ROW), "-")


def test_a_line_that_is_too_long_for_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ngrpo.foreign.LONGEST_LINE", 1000)
    with pytest.raises(UserError, match=r"a line of more than 1,000 bytes[^$]*line 2"):
        grade_file(written(tmp_path / "in.jsonl", ROW, {**ROW, "id": "2", "response": "x" * 1000}), tmp_path / "out")


def test_an_empty_id_names_no_row(tmp_path):
    with pytest.raises(UserError, match=r"field 'id' is empty[^$]*line 1"):
        grade_file(written(tmp_path / "in.jsonl", {**ROW, "id": " "}), tmp_path / "out.jsonl")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_is_a_finite_time(seconds):
    with pytest.raises(UserError, match="limits must be positive"):
        GradingLimits(seconds=seconds)


def test_options_of_the_other_kind_of_file_are_refused(tmp_path):
    rows, samples = written(tmp_path / "in.jsonl", ROW), tmp_path / "in.parquet"
    samples.touch()
    for given in ([rows, "--problems", rows], [samples, "--id-field", "x"], [samples, "--kind", "math"]):
        done = CliRunner().invoke(main, ["grade", *map(str, given), "--out", str(tmp_path / "out")])
        assert "says nothing of" in done.output + str(done.exception)
        assert not (tmp_path / "out").exists()
    for given in ([rows], [samples, "--problems", rows]):  # options that weren't given say nothing of any file
        done = CliRunner().invoke(main, ["grade", *map(str, given), "--out", str(tmp_path / "out")])
        assert "says nothing of" not in done.output + str(done.exception)


def test_a_response_that_utf8_cant_hold_is_shown(tmp_path):
    source = written(tmp_path / "in.jsonl", {**ROW, "response": "\\boxed{\ud800}"})
    shown = subprocess.run([sys.executable, "-m", "ngrpo", "show", str(source), "1"], capture_output=True, text=True)
    assert "\\ud800" in shown.stdout, shown.stderr


def test_a_key_that_is_given_twice_is_named(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": "1", "answer": "1", "answer": "2", "response": "", "kind": "math"}')
    with pytest.raises(UserError, match="the key 'answer' is given twice"):
        grade_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_samples_that_unpack_beyond_all_measure_are_refused_before_they_do(tmp_path):
    rows = 40_000
    same = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 100_000]))
    columns = {"problem_id": ["p"] * rows, "text": same}
    columns |= {"finish_reason": ["stop"] * rows, "spec": ["s"] * rows}
    pq.write_table(pa.table({**columns, "sample": list(range(rows))}), tmp_path / "s.parquet")
    problems = pa.table({"id": ["p"], "problem": ["?"], "answer": ["1"], "kind": ["math"]})
    pq.write_table(problems, tmp_path / "p.parquet")
    with pytest.raises(UserError, match="unpacks to more than"):
        grade_samples(tmp_path / "s.parquet", tmp_path / "p.parquet", tmp_path / "out.parquet")
