"""The public sample report: its links lead somewhere, it answers today's claims, and it needs nothing beside it."""

import re
from pathlib import Path

import pytest
import yaml
from pages import ROOT
from sample import LARGEST, REPORTS, SAMPLE, links, without_dead_links

PAGES = sorted(page for folder in REPORTS.values() for page in folder.rglob("*.html"))


def dead_links(page: Path, html: str) -> list[str]:
    """Links of a page that lead to no file."""
    return [to for to in links(html) if not (page.parent / to).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_of_the_sample_lead_to_pages_of_it(page: Path) -> None:
    assert not dead_links(page, page.read_text(encoding="utf-8"))


def test_a_link_to_what_is_not_copied_becomes_its_text() -> None:
    page, other = SAMPLE / "index.html", SAMPLE / "problems" / "x.html"
    html = '<a href="../runs/a/spec.json" title="t">spec</a> <a href="problems/x.html#p">p</a> <a href="#claims">c</a>'
    assert dead_links(page, html)
    mended = without_dead_links(html, page, {other.resolve()})
    assert list(links(mended)) == ["problems/x.html"]
    assert re.sub("<[^>]+>", "", mended) == "spec p c"


@pytest.mark.parametrize("scale", REPORTS)
def test_a_report_answers_its_scales_claims_of_today(scale: str) -> None:
    html = (REPORTS[scale] / "index.html").read_text(encoding="utf-8")
    words = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html)).replace("&#39;", "'").replace("&#x27;", "'")
    claims = yaml.safe_load((ROOT / "config" / "claims.yaml").read_text())["claims"]
    own = {name: claim["says"] for name, claim in claims.items() if claim.get("scale") == scale}
    assert own
    assert [name for name, says in own.items() if says not in words] == []
    assert sum(path.stat().st_size for path in REPORTS[scale].rglob("*")) <= LARGEST
