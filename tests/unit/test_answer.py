"""The page's first screen: which claims it shows, where it draws them, and what its sentence says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_study import make_study
from unwritten import page_html

from ngrpo.claims.evidence import Answer as Beyond
from ngrpo.claims.evidence import ShownEffect
from ngrpo.claims.verdicts import ClaimResult
from ngrpo.report.answer import ForestRow, answer
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

WIDE = Beyond("on problems like these", -0.5, 0.7, 0.6, 0.4)
PART = ShownEffect("N-GRPO − GRPO", "points", 0.02, 0.01, 0.03, 0.01, 0.0176, 3, p=0.01, beyond=WIDE)
CLAIM = ClaimResult(
    "x", "Table 1, row 3", "table1", "on these benchmarks", "One is above.", None, None, "paper", "supported", "",
    parts=(PART,),
)  # fmt: skip


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("paper"), "paper", problems=2)


def rows(study: Study, *claims: ClaimResult) -> list[ForestRow]:
    return [row for _, family in answer(study, claims).families for row in family]


def test_a_row_lies_where_its_numbers_are(paper: Study) -> None:
    seen = answer(paper, [CLAIM])
    [[where, [row]]] = seen.families
    assert where == "Table 1"
    assert 0 < seen.zero < row.here.low < row.paper < row.at < row.here.high < 100
    assert (row.at - row.here.low) == pytest.approx(row.here.high - row.at, abs=0.02)
    assert row.at - seen.zero == pytest.approx(2 * (row.here.low - seen.zero), abs=0.05)
    assert row.beyond
    assert (row.beyond.low, row.beyond.high, row.beyond.open_low, row.beyond.open_high) == (0, 100, True, True)
    assert not row.here.open_low
    at = {text: place for place, text in seen.ticks}
    assert at["0.0"] == seen.zero
    assert at["+2.0"] == row.at


def test_a_heading_stands_once_over_all_its_claims(paper: Study) -> None:
    """Families that are judged each by itself may be of one table; the control: those of two aren't put together."""
    other, elsewhere = replace(CLAIM, family="width"), replace(CLAIM, family="length", where="Table 2")
    again = replace(CLAIM, family="length", where="Table 5")  # a family is headed by its first claim
    families = answer(paper, [CLAIM, elsewhere, other, again]).families
    assert [(where, len(rows)) for where, rows in families] == [("Table 1", 2), ("Table 2", 2)]


def test_the_effect_that_is_shown_least_stands_for_a_claim(paper: Study) -> None:
    against = replace(PART, what="against it", estimate=-0.02, p=0.9)
    unsure = replace(PART, what="unsure", p=0.3)
    other = replace(PART, what="a cosine", unit="number")
    [row] = rows(paper, replace(CLAIM, parts=(PART, against, unsure, other)))
    assert (row.shown.what, row.more) == ("against it", 3)
    near = replace(PART, what="near", reference="margin (ours)", margin=True, paper=0.05)
    far = replace(near, what="far", low=-0.04)
    [row] = rows(paper, replace(CLAIM, parts=(far, near)))
    assert row.shown.what == "far"
    assert row.paper is None
    assert row.margin.low < row.at < row.margin.high  # as a band


def test_only_the_papers_own_value_is_marked_as_the_papers(paper: Study) -> None:
    lead = replace(PART, reference="lead to be seen (ours)", paper=0.5)
    [seen] = rows(paper, replace(CLAIM, parts=(lead,)))
    assert (seen.paper, seen.margin) == (None, None)
    assert seen.here.high > 50  # an unmarked value takes no room on the axis, either
    [own] = rows(paper, replace(CLAIM, scale="toy"))
    assert own.paper is None
    [control] = rows(paper, CLAIM)
    assert control.paper is not None


def test_what_wasnt_run_or_judged_or_has_another_unit_is_counted_and_not_drawn(paper: Study) -> None:
    cosine = replace(CLAIM, parts=(replace(PART, unit="number"),))
    claims = [replace(CLAIM, verdict="not run"), replace(CLAIM, verdict=None), cosine]
    seen = answer(paper, claims)
    assert (seen.families, seen.waiting) == ([], 1)
    assert seen.sentence == "2 claims: 1 supported, 1 not run. None has its evidence yet."
    assert answer(paper, []).sentence == "This configuration has no claim that this scale judges."


def test_the_sentence_says_claim_verdict_effect_both_intervals_and_the_papers_value(paper: Study) -> None:
    assert answer(paper, [CLAIM]).sentence == (
        "“One is above.” Supported: N-GRPO − GRPO: +2.0 points (95 % interval +1.0 to +3.0 on these benchmarks, −50.0"
        " to +70.0 on problems like these; the paper has +1.8). 1 claim: 1 supported."
    )


def test_every_line_leads_to_its_evidence(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, problems=4, seeds=2), Results(tmp_path / "toy")
    html = page_html(study, results)
    table = html[html.index('<table class="answer"') : html.index("</table>")]
    targets = re.findall(r'<th scope="row"><a href="#(claim-[^"]+)">', table)
    assert len(targets) > 2
    assert all(f'id="{target}"' in html for target in targets)
    assert (
        html.index("<h1>") < html.index(table) < html.index('class="facts"') < html.index("This study isn’t complete")
    )
