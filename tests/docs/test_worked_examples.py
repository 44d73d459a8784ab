"""The worked examples of docs/ can be followed by somebody who opens nothing else."""

from pathlib import Path

import pytest
from examples import NotFollowed, copy_of_repository, follow, is_example, touched
from pages import Page, pages

EXAMPLES = [page for page in pages() if is_example(page)]


@pytest.mark.parametrize("page", EXAMPLES, ids=[page.name for page in EXAMPLES])
def test_a_worked_example_does_what_it_says_in_at_most_three_files(page: Page, tmp_path: Path) -> None:
    assert len(touched(page)) <= 3
    assert follow(page, copy_of_repository(tmp_path))


def test_there_is_an_example_of_each_extension() -> None:
    assert {"docs/extend/mixer.md", "docs/extend/objective.md", "docs/extend/engine.md"} <= {p.name for p in EXAMPLES}


FILE = "Make `a.py`:\n\n<!-- file: a.py -->\n```python\nprint(1)\n```\n"
RUN = "\n<!-- run -->\n```bash\npython3 a.py\n```\n\n<!-- prints -->\n```text\n1\n```\n"


def test_files_are_made_edited_and_run(tmp_path: Path) -> None:
    edit = "In `a.py`, after `print(1)`:\n\n<!-- edit: a.py after: print(1) -->\n```python\nprint(2)\n```\n"
    assert follow(Page("p.md", FILE + edit + RUN.replace("1\n```\n", "1\n2\n```\n")), tmp_path) == ["1\n2\n"]
    assert (tmp_path / "a.py").read_text() == "print(1)\nprint(2)\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE + RUN.replace("1\n```\n", "2\n```\n"), "p.md:14: it printed\n1"),
        (FILE.replace("print(1)", "print(") + RUN, "it ended with 1"),
        (FILE.replace("`a.py`", "a file") + RUN, "the text doesn't name `a.py`"),
        (FILE + "`b`\n\n<!-- edit: a.py after: b -->\n```python\nc\n```\n", "0 lines of a.py begin with b"),
        (FILE + FILE, "a.py is there already"),
        (RUN.replace("<!-- run -->\n", ""), "it printed\nnothing"),
    ],
)
def test_what_cannot_be_followed_is_found(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NotFollowed, match=r"p\.md:") as error:
        follow(Page("p.md", text), tmp_path)
    assert said in str(error.value)
