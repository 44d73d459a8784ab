"""The public reports: docs/sample/, the toy study's, with README's picture of it, and docs/pocket/, the pocket study's.

`python tests/docs/sample.py [SCALE]` copies the page of results/SCALE and the pages of problems of its main table; of
pocket also what its numbers come from, grades and training metrics (no weights). Links to other files of the study,
which aren't copied, become their text with the file's path in the results as a hint. `make sample`: the toy's, from a
finished study.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from pages import ROOT

from ngrpo.files import whole_folder
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

REPORTS = {"toy": ROOT / "docs" / "sample", "pocket": ROOT / "docs" / "pocket"}
SAMPLE, PICTURE = REPORTS["toy"], ROOT / "docs" / "pictures" / "report.png"
SCREEN = {"width": 1280, "height": 800}
LARGEST = 2_500_000
"""Bytes of the whole sample: it is part of every clone."""
_LINK = re.compile(r'<a\b(?P<attributes>[^>]*?)\bhref="(?P<to>[^"]*)"(?P<more>[^>]*)>(?P<text>.*?)</a>', re.DOTALL)
_MARKS = re.compile(r' data-(cell|is)="[^"]*"')
"""What tests compare a page's numbers by: a tenth of a page."""
_OUTSIDE = re.compile(r"(data|https?|mailto):|#")


def links(html: str) -> Iterator[str]:
    """Where a page's links lead that aren't addresses, data or places in the page: relative paths, decoded."""
    for match in _LINK.finditer(html):
        if not _OUTSIDE.match(match["to"]):
            yield unquote(match["to"].partition("#")[0])


def without_dead_links(html: str, page: Path, copied: set[Path]) -> str:
    """A page without marks for tests, whose links to files that aren't copied are their text. page: where it lies."""

    def mended(link: re.Match[str]) -> str:
        if _OUTSIDE.match(link["to"]) or (page.parent / unquote(link["to"].partition("#")[0])).resolve() in copied:
            return link[0]
        return f'<span title="{link["to"].lstrip("./")}">{link["text"]}</span>'

    return _LINK.sub(mended, _MARKS.sub("", html))


def pages_of(study: Study, results: Results) -> list[Path]:
    """The page, and those of the problems of its main table, all training seeds, and of what was fed."""
    report = results.report.page.parent.resolve()
    main = {cell.evaluation for cell in study.cells["main"]}
    main |= {name for evaluation in main for name in study.extra_seeds.get(evaluation, ())}
    names = {f"{evaluation.replace('/', '--')}.html" for evaluation in main}
    names |= {f"mixing-{run}.html" for run in study.mixing_runs[:1]}
    opened = (p for p in sorted(report.glob("problems/*.html")) if p.name in names)
    return [report / results.report.page.name, *opened]


def data_of(study: Study, results: Results) -> list[Path]:
    """What the numbers come from: every evaluation's grades, every run's training metrics."""
    files = [*(results.evaluation(name).grades for name in study.evaluations), *map(results.table, study.cells)]
    files += [path for run in study.runs for path in (results.run(run).metrics, results.run(run).spec)]
    return [path.resolve() for path in files if path.exists()]


def write_sample(study: Study, results: Results, out: Path, *, data: bool = False) -> int:
    """Copy a finished report's pages to `out`, whole or not at all; all bytes. Raises SystemExit where too many.

    data: with what the numbers come from.
    """
    pages = pages_of(study, results)
    report = pages[0].parent
    copied = {path.resolve() for path in pages}
    with whole_folder(out) as part:
        for path in pages:
            target = part / path.relative_to(report)
            target.parent.mkdir(exist_ok=True)
            target.write_text(without_dead_links(path.read_text(encoding="utf-8"), path, copied), encoding="utf-8")
        for path in data_of(study, results) if data else ():
            target = part / "data" / path.relative_to(results.root.resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        if size > LARGEST:
            raise SystemExit(f"the sample would be {size:,} bytes, more than {LARGEST:,}: it is part of every clone")
    return size


def take_picture(page: Path, out: Path) -> None:
    """The first screen of a page as PNG in 256 colors, by headless Chromium."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        opened = browser.new_page(viewport=SCREEN, color_scheme="light")
        opened.goto(page.as_uri())
        opened.screenshot(path=out)
        browser.close()
    Image.open(out).convert("RGB").quantize(256).save(out, optimize=True)


def main(scale: str = "toy") -> None:
    """Write a scale's from its results, and of the toy's the picture."""
    if scale not in REPORTS:
        raise SystemExit(f"no report of scale {scale} is kept: {', '.join(REPORTS)}")
    results, out = Results(ROOT / "results" / scale), REPORTS[scale]
    if not results.report.page.exists():
        raise SystemExit(f"there is no {results.report.page}: `make sample` or `make {scale}` makes the study first")
    study = load_study(ROOT / "config", scale, results.root)
    size = write_sample(study, results, out, data=scale == "pocket")
    sys.stdout.write(f"wrote {out.relative_to(ROOT)} ({size:,} bytes)\n")
    if scale == "toy":
        take_picture(out / "index.html", PICTURE)
        sys.stdout.write(f"wrote {PICTURE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
