"""The report page in a real browser (`make test-page`): it opens without a word, and all of it is there."""

import itertools
import re
import shutil
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from synthetic_study import make_study

from ngrpo.formatting import percent
from ngrpo.report.page import report
from ngrpo.report.tables import analyze
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.training.live_page import write_live_page

pytest.importorskip("playwright", reason="`make test-page` installs playwright")
from playwright.sync_api import Page, sync_playwright

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium: the system's, or the one that playwright installs; without either the tests can't run here."""
    with sync_playwright() as playwright:
        system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if not system and not Path(playwright.chromium.executable_path).exists():
            pytest.exit("there is no Chromium here (apt install chromium)", 3)
        started = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results of a finished synthetic study with its page."""
    folder = tmp_path_factory.mktemp("study")
    made, results = make_study(folder, "paper", problems=12, seeds=2), Results(folder / "paper")
    write_all(made, results)
    return results


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The same of a toy study with two tables, whose runs are watched."""
    folder = tmp_path_factory.mktemp("toy")
    made = make_study(folder, "toy", problems=12, tables=("main", "ablation-inference"))
    results = Results(folder / "toy")
    write_all(made, results)
    write_live_page(results)
    return results


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The same of the paper's whole study: every table and model, three training seeds."""
    folder = tmp_path_factory.mktemp("whole")
    made, results = make_study(folder, "paper", problems=4, tables=None, seeds=3), Results(folder / "paper")
    write_all(made, results)
    return results


def write_all(made: Study, results: Results) -> None:
    """Every table of a study, and its report."""
    for table in made.cells:
        analyze(table, made, results, results.table(table), results.exploration(table), results.excerpts(table))
    report(made, results, results.report.page)


@pytest.fixture
def opened(browser, study: Results):
    """The page in a window: opened(size, **options) → the page; what the console said ends up in page.said."""
    contexts = []

    def get(size: dict = DESK, **options) -> Page:
        context = browser.new_context(viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("requestfailed", lambda request: page.said.append(f"not loaded: {request.url}"))
        page.goto(study.report.page.as_uri())
        return page

    yield get
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_word_and_holds_tables_and_figures(opened, scheme: str, scripts: bool) -> None:
    page = opened(color_scheme=scheme, java_script_enabled=scripts)
    assert page.said == []
    assert page.locator("h1").count() == 1
    assert page.locator("table").count() >= 4
    assert page.locator("svg, img").count() >= 2
    assert page.locator("table").first.is_visible()


def test_nothing_is_loaded_from_elsewhere(opened, study: Results) -> None:
    html = study.report.page.read_text()
    assert not re.findall(r"""(?:src|href)=["']https?://[^"']+\.(?:js|css|woff2?|png|svg)["']""", html)


def test_every_link_and_anchor_resolves(opened, study: Results) -> None:
    page, here = opened(), study.report.folder
    targets = page.eval_on_selector_all("a[href]", "links => links.map(a => a.getAttribute('href'))")
    assert len(targets) > 10
    ids = set(page.eval_on_selector_all("[id]", "all => all.map(e => e.id)"))
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in ids, target
        elif not target.startswith(("http://", "https://")):
            file = unquote(target.partition("#")[0])
            assert (here / file).exists(), target
    assert len(page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")) == len(ids)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(opened, scheme: str) -> None:
    page = opened(PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


CUT = """() => {
  const cut = [];
  const aside = '.settings, pre, svg, details:not([open]) > :not(summary), .skip, .unseen, .stack thead';
  for (const e of document.querySelectorAll('main *, header *')) {
    if (e.closest(aside)) continue;
    const r = e.getBoundingClientRect();
    if (r.width && r.height && (r.right > innerWidth + 1 || r.left < -1)) cut.push(e.tagName + ': ' + e.innerText);
  }
  for (const e of document.querySelectorAll('.scroll'))
    if (!e.querySelector('.settings') && e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
      cut.push(e.getAttribute('aria-label'));
  return document.documentElement.scrollWidth > innerWidth ? ['the page', ...cut] : cut;
}"""
"""What lies beyond the window, all details open: elements, regions that must be scrolled, the page. Tables of settings,
whose lines are code, may scroll in a region of their own."""
OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"


def opened_pages(results: Results) -> list[Path]:
    """The report, the page of one evaluation, and that of what was fed."""
    report = results.report
    return [report.page, *sorted(report.problems.glob("*standard*"))[:1], *report.problems.glob("mixing-*")]


def cut_at(page: Page) -> dict[int, list[str]]:
    """What is cut at the widths, from a phone to a wide screen, at which anything is, all details open."""
    page.evaluate(OPEN)
    cut = {}
    for width in (360, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        if beyond := page.evaluate(CUT):
            cut[width] = beyond
    return cut


@pytest.mark.parametrize("scale", ["toy", "study"])
def test_nothing_is_cut_from_a_phone_to_a_wide_screen_and_axe_finds_nothing(opened, scale: str, request) -> None:
    axe = Path(str(files("axe_playwright_python").joinpath("axe.min.js"))).read_text()
    for path in opened_pages(request.getfixturevalue(scale)):
        page = opened(color_scheme="dark" if scale == "toy" else "light")
        page.goto(path.as_uri())
        assert cut_at(page) == {}, path.name
        page.evaluate(axe)
        violations = page.evaluate("axe.run()")["violations"]
        assert [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in violations] == [], path.name
    page.add_style_tag(content="main p { min-width: 150vw; color: #999; background: #888 }")
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"data:,\">')")
    assert page.evaluate(CUT)  # the negative controls
    assert {"color-contrast", "image-alt"} <= {v["id"] for v in page.evaluate("axe.run()")["violations"]}


def test_nothing_is_cut_on_the_page_of_the_whole_paper(opened, whole: Results) -> None:
    """axe would take minutes on its hundred thousand elements; the smaller pages are made of the same parts."""
    page = opened()
    page.goto(whole.report.page.as_uri())
    assert cut_at(page) == {}


PAPER = {"width": 703, "height": 1000}
"""What A4 leaves between the margins that the page asks for, in CSS pixels; a wider page would be printed smaller."""
WIDTH = "document.documentElement.scrollWidth"


@pytest.mark.parametrize("scale", ["toy", "study", "whole"])
def test_paper_is_filled_and_leaves_out_what_is_folded(opened, scale: str, request) -> None:
    for path in opened_pages(request.getfixturevalue(scale))[: 1 if scale == "whole" else None]:
        page = opened(PAPER)
        page.goto(path.as_uri())
        screen = page.evaluate("document.body.innerText.length")
        page.emulate_media(media="print")
        assert page.evaluate(WIDTH) <= PAPER["width"], path.name
        folded = page.locator("details:not([open])")
        assert all(one.is_hidden() for one in folded.all()[:20])
        heads = page.locator(".stack thead")
        assert not heads.count() or heads.first.is_visible()  # tables, and not a phone's lists
        assert 0 < page.evaluate("document.body.innerText.length") <= screen
    page.add_style_tag(content="main p { min-width: 150vw }")
    assert page.evaluate(WIDTH) > PAPER["width"]  # the negative control


def test_the_live_page_reads_without_scripts_and_axe_finds_nothing(opened, toy: Results) -> None:
    write_live_page(toy)  # now: one of minutes ago says that it is old
    page = opened()
    page.goto(toy.report.live.as_uri())
    assert page.locator("#old").is_hidden()
    page.evaluate(Path(str(files("axe_playwright_python").joinpath("axe.min.js"))).read_text())
    assert [v["id"] for v in page.evaluate("axe.run()")["violations"]] == []
    page = opened(java_script_enabled=False)
    page.goto(toy.report.live.as_uri())
    assert "finished" in page.locator("table").inner_text()


def test_headings_go_down_one_level_at_a_time_and_figures_have_texts(opened) -> None:
    page = opened()
    levels = page.eval_on_selector_all("h1,h2,h3,h4,h5", "all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.eval_on_selector_all("img", "all => all.filter(i => !i.alt).length") == 0
    unnamed = (
        "all => all.filter(s => !s.getAttribute('aria-label') && !s.querySelector('title') && !s.ariaHidden).length"
    )
    assert page.eval_on_selector_all("svg[role=img], figure > svg", unnamed) == 0


CONTRAST = """() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const rgb = s => (s.match(/[\\d.]+/g) || []).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0.99) return c; } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('p, td, th, li, h1, h2, h3, a, dt, dd, summary, small')) {
    if (!e.innerText || !e.innerText.trim() || !e.offsetParent) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(e.tagName + ': ' + e.innerText.slice(0, 40));
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []
    page.add_style_tag(content="p, td { color: #8a8a8a !important; background: #808080 !important }")
    assert page.evaluate(CONTRAST)  # the negative control


def test_the_pages_numbers_are_those_of_the_files(opened, study: Results) -> None:
    frame = pd.read_parquet(study.table("main"))
    shown = opened().locator("main, body").first.inner_text()
    own = frame[frame["against"].isna() & frame["headline"] & (frame["status"] == "ok")].sample(12, random_state=1)
    for row in own.itertuples():
        assert percent(row.value) in shown, (row.label, row.benchmark, row.metric)


TABLES = """() => {
  const files = links => links.map(a => a.getAttribute('href')).filter(h => !/^(#|[a-z]+:)/.test(h));
  const links = e => files([...e.querySelectorAll('a[href]')]);
  const numbers = e => [...e.querySelectorAll('td')].filter(td => /[0-9]/.test(td.innerText)).length;
  const tables = [];
  let heading = '', before = [];
  for (const e of document.querySelectorAll('h2, h3, a[href], table')) {
    if (/H[23]/.test(e.tagName)) { heading = e.innerText; before = []; }
    else if (e.tagName === 'A') before.push(e);
    else if (numbers(e) && !e.matches('.answer')) tables.push({
      heading, files: [...files(before), ...links(e)], measured: e.matches('.results:not(.differences):not(.explored)'),
      rows: [...e.querySelectorAll('tbody tr')].filter(numbers).map(row => ({
        label: row.querySelector('th, td').innerText.split('\\n')[0], files: links(row),
        value: row.querySelector('.value') && row.querySelector('.value').innerText })) });
  }
  return tables;
}"""


def untraced(page: Page, study: Results) -> list[str]:
    """Each table with numbers that names no file below its heading, or one that isn't there; each row of results whose
    first number isn't what the row's grades say, or where it has none (an average) the table's file."""
    wrong = []
    for table in page.evaluate(TABLES):
        files = [study.report.folder / unquote(file) for file in table["files"]]
        if not files or not all(path.exists() for path in files):
            gone = [path.name for path in files if not path.exists()]
            wrong.append(f"{table['heading']}: {f'{gone} are missing' if gone else 'no file is named'}")
            continue
        for row in (r for r in table["rows"] if table["measured"] and r["value"]):
            if row["files"]:
                said = (pd.read_parquet(study.report.folder / unquote(row["files"][0]))["grade"] == "correct").mean()
            else:
                frame = pd.read_parquet(next(path for path in files if path.parent.name == "analysis"))
                own = frame[(frame["label"] == row["label"]) & (frame["benchmark"] == "Avg") & frame["against"].isna()]
                said = own[own["estimator"] == "mean"]["value"].item()
            if percent(said) != row["value"]:
                wrong.append(f"{table['heading']}: {row['label']} is {row['value']}, its file says {percent(said)}")
    return wrong


def test_every_number_can_be_traced_to_a_file_by_its_link(opened, study: Results) -> None:
    page = opened()
    measured = [table for table in page.evaluate(TABLES) if table["measured"]]
    assert len(measured) >= 2
    assert (
        sum(bool(row["files"]) for row in measured[0]["rows"]) == sum(bool(r["value"]) for r in measured[0]["rows"]) > 2
    )
    assert untraced(page, study) == []


def test_a_number_without_its_file_is_noticed(opened, study: Results, tmp_path: Path) -> None:
    page = opened()
    tables = page.evaluate(TABLES)
    row = next(table for table in tables if table["measured"])["rows"][0]
    grades = study.report.folder / unquote(row["files"][0])
    grades.rename(tmp_path / "away")
    assert any(f"['{grades.name}'] are missing" in line for line in untraced(page, study))
    (tmp_path / "away").rename(grades)
    page.evaluate("document.querySelector('.results:not(.explored) .value').innerText = '12.3'")
    assert [f"is 12.3, its file says {row['value']}" in line for line in untraced(page, study)] == [True]
    page.evaluate("document.querySelectorAll('main a').forEach(a => a.remove())")
    assert [line.partition(": ")[2] for line in untraced(page, study)] == ["no file is named"] * len(tables)
