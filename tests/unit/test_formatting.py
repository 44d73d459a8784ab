"""Numbers as pages write them: one minus sign, one dash, no sign on a zero."""

import math

import pytest

from ngrpo import formatting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.percent(-0.0123), "−1.2"),
        (formatting.percent(math.nan), "–"),
        (formatting.percent_range(-0.01, 0.02), "−1.0 to 2.0"),
        (formatting.fixed(-0.5, 2), "−0.50"),
        (formatting.points(-0.0001), "0.0"),
        (formatting.points(0.0123), "+1.2"),
        (formatting.effect(-0.25, "share"), "−25.0 %"),
        (formatting.plain(1e-6), "1e-6"),
        (formatting.p_value(0.00001), "< 0.0001"),
    ],
)
def test_numbers_are_written_one_way(text: str, expected: str) -> None:
    assert text == expected
