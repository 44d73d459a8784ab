"""Foreign text in pages, figures and tables is text: no attribute, no formula, no script, no control character."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_study import make_study
from unwritten import page_html

from ngrpo.report.axes import linear, rows
from ngrpo.report.csv_text import csv_text
from ngrpo.report.drawing import new_axes, set_title, styles
from ngrpo.report.gallery import Gallery
from ngrpo.report.panel import Line, Panel
from ngrpo.report.paper_tables import beside, write_tables
from ngrpo.report.tables import table_frame
from ngrpo.study.expand import load_study
from ngrpo.study.layout import ReportFiles, Results
from ngrpo.study.paper_values import read_paper_values

TEXTS = {
    "an attribute": 'Q" autofocus tabindex=0 onfocus=alert(1) x="',
    "another attribute": "Q' onmouseover='alert(1)",
    "an element": "</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>",
    "a formula": r"$\badcommand{x}$",
    "half a formula": "5 $ and $ \\$ $",
    "controls": "a\x1b[31m\x00\x08b\u202ec\u2066",
    "latex": r"\input{/etc/passwd} \write18{id} {",
    "a template": "{{ 7 * 7 }} {% raw %} ${7*7}",
    "an underscore": "_hidden",
    "a cell": '=HYPERLINK("http://x","y")',
}


class Attributes(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}


def harmless(html: str) -> None:
    """Whether a page has neither scripts, nor handlers, nor control characters."""
    seen = Attributes(html)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & seen.tags
    assert not [name for name in seen.names if name.startswith("on") or name in ("autofocus", "srcdoc")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


@pytest.mark.parametrize("name", TEXTS)
def test_a_figure_with_any_label_is_valid_and_shows_it_to_the_letter(name: str, tmp_path: Path) -> None:
    text = TEXTS[name]
    ends = np.array([1.0, 2.0])
    line = Line(ends, ends, text, styles([text])[text], marks=True)
    panel = Panel(text, linear(ends), rows([text, "b"]), [line], x_label=text, legend=True)
    figure, axes = new_axes()
    set_title(axes, text)
    gallery = Gallery()
    for name, each, at_least in (("panel", panel, 5), ("figure", figure, 3)):  # twice for readers, then as drawn
        drawn = gallery.draw(each, name, text, text)
        harmless(drawn)
        root = ElementTree.fromstring(drawn[: drawn.index("<p ")])
        assert not [e for e in root.iter() if e.tag.endswith("script") or any(k[:2] == "on" for k in e.attrib)]
        words = "".join(root.itertext())
        assert words.count(text.split("$")[-1] if "$" in text else text[:1]) >= at_least
    gallery.write(ReportFiles(tmp_path))
    for path in (tmp_path / "figures").iterdir():
        harmless(path.read_text())
        ElementTree.parse(path)


@pytest.mark.parametrize(
    "name", ["an attribute", "an element", "a formula", "controls", "latex", "a template", "a cell"]
)
def test_titles_labels_and_values_of_any_text_leave_page_and_tables_harmless(name: str, tmp_path: Path) -> None:
    text = TEXTS[name]
    made, results = make_study(tmp_path, problems=2), Results(tmp_path / "toy")
    assert made.folder is not None
    for file in ("study.yaml", "scales/toy.yaml"):
        value = yaml.safe_load((made.folder / file).read_text())
        (made.folder / file).write_text(json.dumps(titled(value, text)))
    card = results.dataset("toy-held-out").card
    card.write_text(json.dumps({**json.loads(card.read_text()), "origin": text}))
    study = load_study(made.folder, "toy")
    html = page_html(study, results)
    harmless(html)
    assert "Content-Security-Policy\" content=\"default-src 'none'" in html
    assert "49" not in re.findall(r"<title>(.*?)</title>", html)[0]
    sheet = beside(table_frame("main", study, results), study, results, read_paper_values(made.folder))
    write_tables(sheet, study, results.report)
    harmless(results.report.table("main", "html").read_text())
    tex = results.report.table("main", "tex").read_text()
    assert not re.search(r"(?<!\\)\\(input|write18|badcommand)\b", tex)
    sheet_text = results.report.table("main", "csv").read_text()
    assert "\x1b" not in tex + sheet_text
    assert not re.search(r"(^|,)\"?=", sheet_text, re.MULTILINE)


def titled(value: object, text: str, key: str = "") -> object:
    """A configuration in which every title is this text, and every label begins with it."""
    if isinstance(value, dict):
        return {k: titled(v, text, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [titled(v, text, key) for v in value]
    if key == "title":
        return text
    return f"{text} {value}" if key == "label" else value


def test_no_cell_of_a_csv_file_is_a_formula() -> None:
    cells = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "-0.5", "a=b", ""]
    written = pd.read_csv(io.StringIO(csv_text(pd.DataFrame({"a": cells, "b": [-1.5] * 9}))), keep_default_na=False)
    assert written["a"].tolist() == ["'=1+1", "'+A1", "'-A1", "'@SUM(A1)", r"\t=1", r"\r=1", "-0.5", "a=b", ""]
    assert written["b"].tolist() == [-1.5] * 9
