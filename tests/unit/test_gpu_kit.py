"""The kit for GPU nodes: parts come back whole, a failing step ends alone, no report claims what no card showed."""

import json
import random
import sys
import tarfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpu_kit import pack, runner, unpack
from gpu_kit.page import page
from gpu_kit.parts import FORMAT, KitError, collect, extract, read_manifest, split
from gpu_kit.steps import FIGURES, PYTHON, STEPS, Step
from ngrpo import doctor
from ngrpo.doctor.gpu_report import CARD, CPU, NO_CARD, read_report, report_text, write_report
from ngrpo.errors import UserError

MANIFEST = {"format": FORMAT, "made": "2026-01-01", "commit": "abc", "python": "3.12", "torch": "2.11.0"}
NODE = {"card": None, "cards": 0, "cores": 2, "python": "3.12.1", "torch": "2.11.0", "packages": {"verl": "0.5.0"}}
H100 = {"name": "NVIDIA <H100>", "memory_mib": 81559, "driver": "580.1", "cuda": "13.0", "capability": "9.0"}


@pytest.fixture
def parts(tmp_path: Path) -> tuple[list[dict], Path]:
    """An archive of a folder, in parts of 2000 bytes in a kit's folder; what the manifest says of them."""
    folder, kit = tmp_path / "folder", tmp_path / "kit"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text(random.Random(0).randbytes(6000).hex())
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    pack.pack(folder, tmp_path / "some.tar.xz")
    return split(tmp_path / "some.tar.xz", kit / "parts", 2000), kit


def test_parts_are_small_and_come_back_whole(parts: tuple[list[dict], Path], tmp_path: Path) -> None:
    facts, kit = parts
    assert len(facts) > 2
    assert all((kit / "parts" / part["name"]).stat().st_size == part["bytes"] <= 2000 for part in facts)
    extract(collect(facts, kit, tmp_path / "kept"), tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "a.txt").read_text() == (tmp_path / "folder" / "deep" / "a.txt").read_text()
    assert (tmp_path / "out" / "run").stat().st_mode & 0o111
    assert not (tmp_path / "kept").exists()


def test_a_python_without_the_filter_of_archives_unpacks_and_refuses_as_well(
    parts: tuple[list[dict], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12's is 3.11.2."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    facts, kit = parts
    extract(collect(facts, kit, tmp_path / "kept"), tmp_path / "out")
    assert (tmp_path / "out" / "run").stat().st_mode & 0o111
    for name, leads in (("../beside", ""), ("/beside", ""), ("a/link", "../../beside"), ("link", "/beside")):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = (tarfile.SYMTYPE, leads) if leads else (tarfile.REGTYPE, "")
        with tarfile.open(tmp_path / "bad.tar.xz", "w:xz") as archive:
            archive.addfile(member)
        with pytest.raises(KitError, match="outside of its folder"):
            extract([tmp_path / "bad.tar.xz"], tmp_path / "bad")
        assert not (tmp_path / "bad").exists()


def test_a_damaged_part_is_named(parts: tuple[list[dict], Path], tmp_path: Path) -> None:
    facts, kit = parts
    path = kit / "parts" / facts[1]["name"]
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(KitError, match=rf"{facts[1]['name']} is damaged"):
        collect(facts, kit, tmp_path / "kept")


def test_parts_can_come_one_at_a_time(parts: tuple[list[dict], Path], tmp_path: Path) -> None:
    facts, kit = parts
    whole = {part["name"]: (kit / "parts" / part["name"]).read_bytes() for part in facts}
    for path in (kit / "parts").iterdir():
        path.unlink()
    for number, (name, content) in enumerate(whole.items(), 1):
        (kit / "parts" / name).write_bytes(content)
        if number < len(whole):
            with pytest.raises(KitError, match=f"{len(whole) - number} of {len(whole)} parts aren't here yet"):
                collect(facts, kit, tmp_path / "kept")
        else:
            extract(collect(facts, kit, tmp_path / "kept"), tmp_path / "out")
        (kit / "parts" / name).unlink()
    assert (tmp_path / "out" / "run").exists()


def test_a_node_that_does_not_fit_is_told_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    unpack.check_python(MANIFEST, (3, 12))
    with pytest.raises(KitError, match=r"for Python 3\.12, and .* is 3\.10"):
        unpack.check_python(MANIFEST, (3, 10))
    torch = {"version": "2.11.1+cu130", "cuda": "13.0", "usable": True, "site": "/x"}
    cards = [["NVIDIA A100", "450.80"]]
    unpack.check_torch(MANIFEST, torch, cards)
    with pytest.raises(KitError, match="has no torch"):
        unpack.check_torch(MANIFEST, None, cards)
    with pytest.raises(KitError, match=r"for torch 2\.11, and .* has 2\.6\.0"):
        unpack.check_torch(MANIFEST, torch | {"version": "2.6.0"}, cards)
    with pytest.raises(KitError, match=r"NVIDIA A100, driver 450\.80.*built for CUDA 13\.0"):
        unpack.check_torch(MANIFEST, torch | {"usable": False}, cards)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    unpack.check_torch(MANIFEST, torch | {"usable": False}, cards)


def test_a_folder_that_is_no_kit_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", json.dumps({"format": "other"})):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(KitError, match="is no kit"):
            read_manifest(tmp_path)


def test_the_kit_brings_the_locks_packages_but_torchs() -> None:
    names = pack.carried(pack.LOCK).keys()
    assert {"sglang", "verl", "numpy", "ray", "nvidia-ml-py", "setuptools", "antlr4-python3-runtime"} <= names
    assert not {"torch", "triton", "nvidia-cublas", "cuda-toolkit"} & names
    assert pack.pins(pack.LOCK).keys() - names >= {"torch", "triton", "nvidia-cublas", "cuda-toolkit"}
    assert pack.version_of(pack.LOCK, "torch") == "2.11.0"
    assert all("--hash=sha256:" in entry for entry in pack.carried(pack.LOCK).values())


def step(name: str, code: str, **changes: object) -> Step:
    """A step that runs a line of Python; FILE there: where its figures go."""
    command = (PYTHON, "-c", f"import json, sys, time; FILE = sys.argv[1]; {code}", FIGURES)
    return replace(Step(name, name.title(), command, 10, 10), **changes)


def figures(**values: float) -> str:
    """Code that writes figures, of which none may exceed 1."""
    rows = [{"what": k, "value": v, "unit": "s", "wanted": "at most 1", "met": v <= 1} for k, v in values.items()]
    return f"json.dump({rows!r}, open(FILE, 'w'))"


GOOD, BAD = step("good", figures(time=0.5)), step("bad", "print('a <trace>'); sys.exit(3)")
SLOW = step("slow", "time.sleep(60)", on_cpu=0.4, on_card=0.4)
NEEDS_CARD = step("needs-card", figures(time=0.5), on_cpu=None)


def new_report(node: dict = NODE) -> dict:
    """A report of no step yet."""
    return runner.begin(Path("nothing here"), MANIFEST, "d1gest", node)


def states(report: dict) -> dict[str, str]:
    """Step → how it ended."""
    return {row["name"]: row["state"] for row in report["steps"]}


def test_a_step_that_fails_or_hangs_ends_alone(tmp_path: Path) -> None:
    beyond = step("beyond", figures(time=0.5, more=1.5))
    steps = (BAD, SLOW, beyond, NEEDS_CARD, GOOD)
    runner.run_all(new_report(), steps, tmp_path, None, steps)
    report = read_report(tmp_path / "gpu-report.json")
    assert states(report) == {
        "bad": "failed", "slow": "timed out", "beyond": "failed", "needs-card": "not run", "good": "passed",
    }  # fmt: skip
    rows = {row["name"]: row for row in report["steps"]}
    assert rows["beyond"]["reason"] == "more"
    assert "a <trace>" in rows["bad"]["said"]
    assert rows["needs-card"]["reason"] == "it needs a card, and there is none"
    assert rows["good"]["figures"][0]["value"] == 0.5


def test_counts_of_tests_are_figures(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_a(): pass\ndef test_b(): assert 0\n")
    command = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={FIGURES}", str(tmp_path))
    row = runner.run_step(Step("tests", "Tests", command, 60, 60), False, 60, tmp_path)
    assert [(f["what"], f["value"], f["met"]) for f in row["figures"]] == [
        ("tests passed", 1, True),
        ("tests failed", 1, False),
    ]
    assert row["state"] == "failed"


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    once = step(
        "once", f"assert not __import__('os').path.exists(FILE + '.done'); open(FILE + '.done', 'w'); {figures()}"
    )
    steps = (once, BAD, GOOD)
    report = new_report()
    runner.run_all(report, (once,), tmp_path, None, steps)
    assert states(report) == {"once": "passed", "bad": "not run", "good": "not run"}
    again = runner.begin(tmp_path / "gpu-report.json", MANIFEST, "d1gest", NODE)
    runner.run_all(again, steps, tmp_path, None, steps)
    assert states(again) == {"once": "passed", "bad": "failed", "good": "passed"}
    for changes in ({"digest": "other"}, {"node": NODE | {"card": H100, "cards": 1}}):
        with pytest.raises(UserError, match="of another kit, card"):
            runner.begin(tmp_path / "gpu-report.json", MANIFEST, **{"digest": "d1gest", "node": NODE, **changes})


def test_it_stops_before_a_step_that_would_not_fit(tmp_path: Path) -> None:
    long = replace(GOOD, name="long", on_cpu=500)
    report = new_report()
    runner.run_all(report, (GOOD, long, BAD), tmp_path, runner.time.monotonic() + 100, (GOOD, long, BAD))
    assert states(read_report(tmp_path / "gpu-report.json")) == {"good": "passed", "long": "not run", "bad": "not run"}
    assert "it takes about 500" in report["steps"][1]["reason"]
    runner.run_all(report, (GOOD, long, BAD), tmp_path, runner.time.monotonic() + 5000, (GOOD, long, BAD))
    assert states(report)["bad"] == "failed"


def test_without_a_card_nothing_is_said_of_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, report = tmp_path / "gpu-report.json", new_report()
    runner.run_all(report, (GOOD, NEEDS_CARD), tmp_path, None, (GOOD, NEEDS_CARD))
    assert NO_CARD in (tmp_path / "index.html").read_text()
    assert doctor.main(["--gpu-report", str(path)]) == 1
    assert NO_CARD in capsys.readouterr().out
    assert all(row["on"] == CPU for row in report["steps"])
    for row in report["steps"]:
        row["on"] = CARD
    path.write_text(json.dumps(report))
    with pytest.raises(UserError, match="the node had none"):
        read_report(path)


def test_with_a_card_the_page_names_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = new_report(NODE | {"card": H100, "cards": 1})
    emulated = replace(GOOD, name="emulated", hide_card=True)
    runner.run_all(report, (GOOD, emulated), tmp_path, None, (GOOD, emulated))
    assert [row["on"] for row in report["steps"]] == [CARD, CPU]
    shown = (tmp_path / "index.html").read_text()
    assert "NVIDIA &lt;H100&gt;" in shown
    assert "driver" in shown
    assert NO_CARD not in shown
    assert doctor.main(["--gpu-report", str(tmp_path / "gpu-report.json")]) == 0
    assert "NVIDIA <H100>, 80 GiB, driver 580.1, CUDA 13.0" in capsys.readouterr().out


def test_the_page_is_whole_and_escaped(tmp_path: Path) -> None:
    report = new_report()
    runner.run_all(report, (BAD, GOOD), tmp_path, None, (BAD, GOOD))
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta",):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Reader().feed(page(report))
    assert open_tags == []
    assert "a &lt;trace&gt;" in page(report)


def harmed(report: dict, name: str) -> object:
    """A report with a fault."""
    row = {**report["steps"][0]}
    return {
        "no object": [],
        "foreign": {"format": "something"},
        "version": report | {"version": 2},
        "lacks a key": {k: v for k, v in report.items() if k != "node"},
        "a step's state": report | {"steps": [row | {"state": "fine"}]},
        "a step twice": report | {"steps": [row, row]},
        "a figure's type": report | {"steps": [row | {"figures": [{"what": 3}]}]},
        "passed, unmet": report | {"steps": [row | {"figures": [row["figures"][0] | {"met": False}]}]},
        "a list for a text": report | {"began": ["now"]},
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no object", "no report of the kit"), ("foreign", "no report of the kit"), ("version", "of version 2"),
        ("lacks a key", "'node' is missing"), ("a step's state", "no state of a step 'fine'"),
        ("a step twice", "is there twice"), ("a figure's type", "'what' is of another type"),
        ("passed, unmet", "isn't what is wanted"), ("a list for a text", "'began' is of another type"),
    ],
)  # fmt: skip
def test_a_bad_report_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str, message: str
) -> None:
    path, report = tmp_path / "gpu-report.json", new_report()
    runner.run_all(report, (GOOD,), tmp_path, None, (GOOD,))
    assert report_text(read_report(path))  # the control: it was good
    path.write_text(json.dumps(harmed(report, name)))
    capsys.readouterr()
    assert doctor.main(["--gpu-report", str(path)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.out == ""
    with pytest.raises(UserError):
        write_report(tmp_path / "new.json", harmed(report, name))
    assert not (tmp_path / "new.json").exists()


def test_a_report_that_is_not_there_or_no_json_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "text").write_text("not JSON")
    for name in ("nothing", "text"):
        assert doctor.main(["--gpu-report", str(tmp_path / name)]) == 1
        assert str(tmp_path / name) in capsys.readouterr().err


def test_every_step_is_a_program_of_the_kit_or_tests_that_are_there() -> None:
    for row in STEPS:
        module = row.command[row.command.index("-m") + 1]
        if row.tests:
            assert all((pack.ROOT / part).exists() for part in row.command if part.startswith("tests/"))
        else:
            assert (pack.ROOT / f"{module.replace('.', '/')}.py").exists()
    assert STEPS[0].name == "replay"
    with pytest.raises(UserError, match=r"did you mean|known"):
        runner.chosen("replai")
    assert [row.name for row in runner.chosen("contract,replay")] == ["replay", "contract"]
    assert sys.executable not in runner.not_run(STEPS[0], True, "")["command"]
