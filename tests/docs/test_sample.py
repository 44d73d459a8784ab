"""The public sample report: its links lead somewhere, it answers today's claims, and it needs nothing beside it."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pages import ROOT
from sample import LARGEST, REPORTS, SAMPLE, links, without_dead_links

from ngrpo.formatting import percent, points

PAGES = sorted(page for folder in REPORTS.values() for page in folder.rglob("*.html"))
TABLES = ("main", "first-study", "controls")


def cell(row: dict) -> str:
    """A value with its interval for other problems, in percent."""
    return f"{percent(row['value'])} [{percent(row['problems_low'])}, {percent(row['problems_high'])}]"


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


def test_the_quoted_results_of_pocket_are_those_of_its_tables() -> None:
    """Each row of docs/try-it.md: values of the first training seed with intervals, differences over all seeds."""
    text = (ROOT / "docs" / "try-it.md").read_text(encoding="utf-8")
    quoted = text[text.index("### The pocket study") : text.index("## On one GPU")]
    tables = {name: pd.read_parquet(REPORTS["pocket"] / "data" / "analysis" / f"{name}.parquet") for name in TABLES}
    values = pd.concat(tables.values())
    values = values[values["headline"] & values["estimator"].isin(["mean", "unbiased"])]
    own = values[values["against"].isna()].drop_duplicates(["label", "metric"])
    shown = {label: [cell(row) for row in rows.to_dict("records")] for label, rows in own.groupby("label", sort=False)}
    rows = [[part.strip() for part in line.strip("| ").split("|")] for line in quoted.splitlines() if "[" in line]
    rows = [row for row in rows if len(row) == 4]
    assert len(rows) == len(shown) == 11
    assert sorted(row[1:] for row in rows) == sorted(shown.values())
    pairs = values[(values["metric"] == "Mean@32") & values["against"].notna()].set_index(["label", "against"])
    for label, against in (("GRPO", "Base"), ("N-GRPO", "Base"), ("N-GRPO", "GRPO")):
        row = pairs.loc[(label, against)].iloc[0]
        assert f"| {label} − {against} | {points(row['value'])}, " in quoted
