"""The report's page without what is written beside it: for tests that read its words."""

from ngrpo.report.page import page
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results


def page_html(study: Study, results: Results) -> str:
    """The page's HTML, of which nothing is written."""
    return page(study, results, results.report.folder)
