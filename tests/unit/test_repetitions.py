"""A number, its interval and its p are one and the same wherever the report says them."""

import pytest
from page_numbers import Said, differing, repeated, said_on_page, said_on_problem_pages
from synthetic_study import make_study
from unwritten import page_html

from ngrpo.claims.evidence import Reader
from ngrpo.report.page import write_problems
from ngrpo.report.tables import analyze
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

STUDIES = {
    "toy": {"tables": ("main", "ablation-inference")},
    "three seeds": {"tables": ("main",), "seeds": 3},
}
CLAIMS, HEAD = "claims table", "head table"


def shown(study: Study, results: Results) -> tuple[str, list[Said]]:
    """The page's HTML, and what the pages of problems say."""
    for table in study.cells:
        analyze(table, study, results, results.table(table), results.exploration(table))
    html = page_html(study, results)
    write_problems(study, Reader(study, results), results.report)
    return html, said_on_problem_pages(study, results.report.problems)


@pytest.fixture(scope="module", params=STUDIES)
def pages(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Said]]:
    folder = tmp_path_factory.mktemp("study")
    return shown(make_study(folder, problems=8, **STUDIES[request.param]), Results(folder / "toy"))


def test_everything_that_is_said_twice_is_said_alike(pages) -> None:
    html, opened = pages
    said = [*said_on_page(html), *opened]
    assert differing(said) == []
    compared = repeated(said)
    everywhere = {"lead sentence", "forest plot", CLAIMS, "results table", "results sentence"}
    assert compared["value"] >= {*everywhere, "figure", "problems", HEAD}
    assert compared["here"] >= everywhere
    assert compared["beyond"] >= everywhere
    assert compared["p"] == compared["beyond p"] == {CLAIMS, "results table"}
    assert compared["size"] >= {CLAIMS, "results caption", "problems"}
    assert compared["problems"] == {"results table", "figure"}


def test_values_of_one_seed_beside_a_difference_over_all_are_named_so(pages, request) -> None:
    several = "seeds" in STUDIES[request.node.callspec.params["pages"]]
    assert (", the first training seed: Base" in pages[0]) is several
    assert ("Over 3 seeds, N-GRPO − GRPO" in pages[0]) is several


def test_one_repetition_that_differs_is_caught(pages) -> None:
    html, opened = pages
    said = [*said_on_page(html), *opened]
    for part, places in repeated(said).items():
        for place in places:
            shared = {(one.quantity, one.part) for one in said if one.part == part and one.where != place}
            changed = next(
                one for one in said if one.where == place and (one.quantity, one.part) in shared and one.part == part
            )
            others = [one for one in said if one is not changed]
            [line, *_] = differing([*others, Said(changed.quantity, part, "77.7 to 78.8 of 9", place)])
            assert "77.7 to 78.8 of 9" in line


def test_a_digit_that_is_changed_on_the_page_is_caught(pages) -> None:
    html, opened = pages
    for place, before in (("answer-sentence", ' points (95'), ("answer-sentence", " on problems like these"),
                          ('class="plot"', " points; on these"), ("<desc", " %"), ('data-is="p"', "</span>"),
                          ('data-is="here"', " to ")):  # fmt: skip
        start = html.index(place)
        end = html.index(before, start)
        digit = html[end - 1]
        altered = html[: end - 1] + str((int(digit) + 5) % 10) + html[end:]
        assert differing([*said_on_page(altered), *opened]), (place, before)
