"""Figures as files: every figure of the page, readable without it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_study import make_study

from ngrpo.audit.status import run_state
from ngrpo.report import figures
from ngrpo.report.curves import CURVES
from ngrpo.report.drawing import FONT, slim
from ngrpo.report.gallery import Gallery
from ngrpo.report.page import report
from ngrpo.report.tables import analyze
from ngrpo.study.layout import ReportFiles, Results


def test_every_figure_of_the_page_lies_beside_it(tmp_path: Path) -> None:
    study, root = make_study(tmp_path), Results(tmp_path / "toy")
    for table in study.cells:
        analyze(table, study, root, root.table(table))
    stale = root.report.figures / "of-an-older-page.svg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    report(study, root, root.report.page)
    html = root.report.page.read_text()
    linked = set(re.findall(r'href="figures/([^"]+)"', html))
    assert {path.name for path in stale.parent.iterdir()} == linked  # none is missing, none is left over
    assert len(linked) == html.count("</desc>") > 10
    for path in stale.parent.iterdir():
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert "var(" not in path.read_text()  # programs other than browsers know no variables


def test_a_lone_figure_names_its_systems_and_the_page_repeats_no_legend(tmp_path: Path) -> None:
    study, root = make_study(tmp_path), Results(tmp_path / "toy")
    logs = {run: run_state(study, root, run).log for run in study.runs}
    gallery, curve = Gallery(), CURVES[0]
    inline = gallery.draw(figures.training_curve(curve, logs), "reward", "Reward: toy", "")
    gallery.write(ReportFiles(tmp_path))
    alone = (tmp_path / "figures" / "reward.svg").read_text()
    for run in logs:
        assert run in alone
        assert run not in inline
    assert 'fill="#fff"' in alone  # a dark viewer shows it, too
    with pytest.raises(ValueError, match="two figures are called reward"):
        gallery.draw(figures.training_curve(curve, logs), "reward", "Reward: toy", "")


def test_a_legend_inside_a_figure_follows_the_pages_theme(tmp_path: Path) -> None:
    study, root = make_study(tmp_path), Results(tmp_path / "toy")
    logs = {run: run_state(study, root, run).log for run in study.runs}
    drawn = figures.training_curve(CURVES[0], logs, legend=True).svg("reward", "", "")
    assert set(logs) <= set(ElementTree.fromstring(drawn).itertext())
    assert unthemed(drawn) == []
    assert unthemed(drawn.replace("var(--ink, #1d1f23)", "#1d1f23")) != []  # the negative control


def unthemed(drawing: str) -> list[str]:
    """Words and lines of a drawing that keep one color on light and dark: black, where none is named."""
    plain: list[str] = []

    def look(element: ElementTree.Element, fill: str | None) -> None:
        fill, kind = element.get("fill", fill), element.tag.rpartition("}")[2]
        painted = {"text": [fill], "path": [element.get("stroke") or fill]}.get(kind, [])
        plain.extend(kind for color in painted if not (color or "black").startswith("var(--"))
        for child in element:
            look(child, fill)

    look(ElementTree.fromstring(drawing), None)
    return plain


TICKS = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">
<defs><path id="m1" d="M 0.123456 1.5&#10;L 2 3.999999"/></defs>
<g id="nobody"><text x="1.23456" style="font-size: 8px; font-family: FONT; fill: red">0.12500</text></g>
<g clip-path="url(#p2)"><use xlink:href="#m1" x="2.0001"/></g>
<path id="patch" d="M 0 0 L 1 1" style="fill: none"/><path d="M 0 0 L 1 1" style="fill: none; stroke: red"/>
<clipPath id="p2"><rect width="1" height="1"/></clipPath></svg>""".replace("FONT", FONT)


def test_a_slimmer_drawing_keeps_labels_references_and_every_line() -> None:
    drawn = slim(TICKS, "a")
    assert ">0.12500</text>" in drawn  # a label is no coordinate
    assert 'd="M 0.12 1.5 L 2 4"' in drawn
    assert ElementTree.fromstring(drawn).find(".//{*}text").attrib == {
        "x": "1.23",
        "style": "font-size: 8px; fill: red",
    }
    named = set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawn))
    assert set(re.findall(r' id="([^"]+)"', drawn)) == named == {"a-0", "a-1"}
    assert drawn.count("<path") == 2  # the marker's, and the one that is drawn
    assert slim(drawn, "a") == drawn


def test_throughput_is_tokens_by_rollout_time_on_each_device(tmp_path: Path) -> None:
    study, root = make_study(tmp_path), Results(tmp_path / "toy")
    run, spec = next(iter(study.runs.items()))
    log = run_state(study, root, run).log
    drawn = log["response_length"] * spec.training.batch_prompts * spec.training.group
    assert (log["throughput"] * log["rollout_seconds"]).to_numpy() == pytest.approx(drawn.to_numpy())
