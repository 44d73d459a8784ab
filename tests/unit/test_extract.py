"""Promises of extraction and of the verdicts that need no computer algebra."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.grading.comparison import integer_verdict, math_verify_verdict, string_verdict
from ngrpo.grading.extract import clean_gold, gold_choice, last_boxed, lenient_choice, line_number, strict_choice


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{7} and cut off \boxed{\frac{1}{2", "7"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"a } stray brace \boxed{4} and { another", "4"),
        (r"\boxed {6}", "6"),
        (r"\\boxed{8}", "8"),
        ("\\boxed{1\n+2}", "1\n+2"),
        (r"שלום \boxed{ט5} סוף", "ט5"),
        ("\\boxed{\x00\ud800}", "\x00\ud800"),
        (r"\boxed{}", None),
        (r"\boxed{  }", None),
        (r"\boxed{unbalanced", None),
        (r"boxed{5}", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_the_answer(text, answer):
    assert last_boxed(text) == answer


@given(st.text(st.characters(exclude_characters="{}\\"), min_size=1).filter(str.strip), st.integers(0, 40))
def test_any_content_comes_back_from_any_depth(content, depth):
    nested = "{" * depth + content + "}" * depth
    assert last_boxed(rf"x \boxed{{{nested}}} y") == nested.strip()


def growth(read: Callable[[str], object], piece: str) -> float:
    """Processor time of reading a megabyte of pieces over that of an eighth of it: 8 for a linear reader, else 64."""
    seconds = []
    for size in (2**17, 2**20):
        text, tries = piece * (size // len(piece)), []
        for _ in range(3):
            began = time.process_time()
            read(text)
            tries.append(time.process_time() - began)
        seconds.append(max(min(tries), 1e-3))  # below a millisecond the clock says nothing
    return seconds[1] / seconds[0]


WIDE = "A" + 200 * " " + "x"


@pytest.mark.parametrize("read", [last_boxed, strict_choice, lenient_choice])
@pytest.mark.parametrize(
    "piece", [r"\boxed{", "{", r"\boxed{1}", "\\", r"\boxed" + " " * 9, " ", "\n", "Answer: ", "A" + 200 * " " + "x"]
)
def test_reading_takes_no_longer_than_the_length(read, piece):
    assert growth(read, piece) < 24


def test_a_reader_that_starts_anew_at_each_brace_would_be_seen():
    assert growth(lambda text: [text.count("\\", at) for at in range(0, len(text), 2**9)], "{") > 24


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("It follows.\nAnswer: C", "C", "C"),
        ("Answer: A\nno, wait\nAnswer: D  ", "D", "D"),
        ("Answer: B\r\n", "B", "B"),
        ("Answer: B\rThanks", "B", "B"),
        ("Answer: B\u2028Thanks", "B", "B"),
        ("**Answer: C**", None, "C"),
        ("The answer: c", None, "C"),
        (r"\boxed{B}", None, "B"),
        (r"\boxed{\text{(B)}} although answer: C", None, "B"),
        ("Answer: E", None, None),
        ("I pick\n(D)\nbecause", None, "D"),
        ("Option A it is", None, "A"),
        ("A" + "x" * 600, None, None),
        ("Answer: Cobalt", None, None),
        ("", None, None),
    ],
)
def test_choices_are_read_strictly_or_leniently(text, strict, lenient):
    assert (strict_choice(text), lenient_choice(text)) == (strict, lenient)


@pytest.mark.parametrize(
    ("answer", "bare"),
    [
        ("$27$", "27"),
        (27.0, "27.0"),
        (27, "27"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\(x\)", "x"),
        (r"\[ x \]", "x"),
        ("$$5$$", "5"),
        ("$1$ or $2$", "$1$ or $2$"),
        (r"\$5", r"\$5"),
    ],
)
def test_references_lose_their_wrapping_only(answer, bare):
    assert clean_gold(answer) == bare


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" 19\n4 + 4 = 8", "19"),
        ("19", "19"),
        ("-3", "-3"),
        ("+2.50  ", "+2.50"),
        ("1,024\n", "1024"),
        ("\n19", None),
        ("19 apples", None),
        ("about 19", None),
        ("1,02", None),
        ("٣", None),
        ("", None),
        ("9" * 100_000, None),
    ],
)
def test_a_number_is_all_of_the_first_line(text, number):
    assert line_number(text) == number


def test_references_of_choices_are_letters():
    forms = ("B", "(b)", r"\text{B}", "**B**", "B) spiro", "B.", "E", "", "AB", "Because")
    assert [gold_choice(x) for x in forms] == ["B"] * 6 + [None] * 4
    assert [gold_choice(x, "ABCDEFGHIJ") for x in ("E", "J", "K")] == ["E", "J", None]


whole_numbers = st.one_of(st.integers(-30, 30), st.integers(-999_999_999, 999_999_999))
zeros = st.sampled_from(["", ".0", ".00", ".0000"])


@given(whole_numbers, whole_numbers, st.booleans(), zeros, zeros)
def test_comparing_integers_as_integers_is_math_verifys_verdict(a, b, same, left, right):
    gold, answer = f"{a}{left}", f"{a if same else b}{right}"
    assert math_verify_verdict(gold, answer) == (integer_verdict(gold, answer), None)


@pytest.mark.parametrize("text", ["007", "1e3", "+5", "-0", "1,000", "5%", "10000000000", "٣", "5.10", "", "0.00000"])
def test_what_is_not_a_plain_integer_is_left_to_math_verify(text):
    assert integer_verdict("5", text) is None
    assert integer_verdict(text, "5") is None


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (r"\frac{1}{2}", "1/2", True),
        (r"\dfrac12", r"\frac{1}{2}", True),
        ("0.5", r"\frac12", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", True),
        ("10", r"10 \text{ cm}^2", True),
        (r"\text{east}", "east", True),
        ("5", r"\$5", True),
        ("90", r"90^\circ", True),
        (".25", "0.25", True),
        ("x=5", "5", True),
        ("27.0", "27", True),
        (r"\sqrt2", r"\sqrt{2}", True),
        ("27", r"\frac{54}{2}", False),
        ("1+x", "x+1", False),
        ("5", "6", False),
    ],
)
def test_the_releases_string_match_compares_spellings_not_values(gold, answer, same):
    assert string_verdict(gold, answer) is same
