"""The public sample report, docs/sample/, and README's picture of it: `make sample`, from a finished toy study.

`python tests/docs/sample.py` copies the page of results/toy and the pages of problems of its main table. Links to other
files of the study, which aren't copied, become their text with the file's name as a hint: a sample is pages alone.
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

SAMPLE, PICTURE = ROOT / "docs" / "sample", ROOT / "docs" / "pictures" / "report.png"
SCREEN = {"width": 1280, "height": 800}
LARGEST = 2_500_000
"""Bytes of the whole sample: it is part of every clone."""
_LINK = re.compile(r'<a\b(?P<attributes>[^>]*?)\bhref="(?P<to>[^"]*)"(?P<more>[^>]*)>(?P<text>.*?)</a>', re.DOTALL)
_OUTSIDE = re.compile(r"(data|https?|mailto):|#")


def links(html: str) -> Iterator[str]:
    """Where a page's links lead that aren't addresses, data or places in the page: relative paths, decoded."""
    for match in _LINK.finditer(html):
        if not _OUTSIDE.match(match["to"]):
            yield unquote(match["to"].partition("#")[0])


def without_dead_links(html: str, page: Path, copied: set[Path]) -> str:
    """A page whose links to files that aren't copied are their text. page: where it lies."""

    def mended(link: re.Match[str]) -> str:
        if _OUTSIDE.match(link["to"]) or (page.parent / unquote(link["to"].partition("#")[0])).resolve() in copied:
            return link[0]
        return f'<span title="{link["to"].lstrip("./")}, in the study’s results">{link["text"]}</span>'

    return _LINK.sub(mended, html)


def pages_of(study: Study, results: Results) -> list[Path]:
    """The page, and those of the problems of its main table, all training seeds, and of what was fed."""
    report = results.report.page.parent.resolve()
    main = {cell.evaluation for cell in study.cells["main"]}
    main |= {name for evaluation in main for name in study.extra_seeds.get(evaluation, ())}
    names = {f"{evaluation.replace('/', '--')}.html" for evaluation in main}
    opened = (p for p in sorted(report.glob("problems/*.html")) if p.name in names or p.name == "mixing-ngrpo-toy.html")
    return [report / results.report.page.name, *opened]


def write_sample(study: Study, results: Results, out: Path) -> int:
    """Copy a finished report's pages to `out`, whole or not at all; their bytes. Raises SystemExit where too many."""
    pages = pages_of(study, results)
    report = pages[0].parent
    copied = {path.resolve() for path in pages}
    with whole_folder(out) as part:
        for path in pages:
            target = part / path.relative_to(report)
            target.parent.mkdir(exist_ok=True)
            target.write_text(without_dead_links(path.read_text(encoding="utf-8"), path, copied), encoding="utf-8")
        size = sum(path.stat().st_size for path in part.rglob("*.html"))
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


def main() -> None:
    """Write both from results/toy."""
    results = Results(ROOT / "results" / "toy")
    if not results.report.page.exists():
        raise SystemExit(f"there is no {results.report.page}: `make sample` makes the study first")
    size = write_sample(load_study(ROOT / "config", "toy"), results, SAMPLE)
    take_picture(SAMPLE / "index.html", PICTURE)
    sys.stdout.write(f"wrote {SAMPLE.relative_to(ROOT)} ({size:,} bytes) and {PICTURE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
