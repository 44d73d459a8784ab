"""Measures of diversity: known values, what must not change them, and a plain definition to compare with."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.statistics.diversity import WORDS, answer_counts, distinct, mean_interval, self_bleu, words

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=9), min_size=2, max_size=5)


def plain_bleu(hypothesis: list[str], references: list[list[str]]) -> float:
    """BLEU-4 by its definition, a loop an n-gram."""

    def grams(text: list[str], n: int) -> Counter:
        return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))

    logs = []
    for n in range(1, 5):
        own, others = grams(hypothesis, n), [grams(text, n) for text in references]
        clipped = sum(min(count, max(other[gram] for other in others)) for gram, count in own.items())
        logs.append(np.log((clipped or 0.1) / max(1, sum(own.values()))))
    closest = min((len(text) for text in references), key=lambda size: (abs(size - len(hypothesis)), size))
    return float(np.exp(np.mean(logs)) * min(1.0, np.exp(1 - closest / len(hypothesis))))


@given(TEXTS)
def test_self_bleu_is_the_mean_of_each_response_against_the_others(texts: list[list[str]]) -> None:
    spoken = [text for text in texts if text]
    if len(spoken) < 2:
        assert np.isnan(self_bleu(texts))
        return
    plain = [plain_bleu(text, spoken[:i] + spoken[i + 1 :]) for i, text in enumerate(spoken)]
    assert self_bleu(texts) == pytest.approx(np.mean(plain))
    assert self_bleu(texts[::-1]) == pytest.approx(self_bleu(texts))


def test_equal_responses_are_wholly_alike_and_others_less() -> None:
    one, other = words("a b c d e f"), words("u v w x y z")
    assert self_bleu([one, one, one]) == pytest.approx(1.0)
    assert self_bleu([one, other]) < 0.1
    assert distinct([one, one], 2) == 5 / 10
    assert distinct([one, other], 2) == 1.0
    assert np.isnan(distinct([["a"]], 2))


def test_answers_are_counted_and_their_entropy_is_in_nats() -> None:
    assert answer_counts([]) == (0, 0.0)
    assert answer_counts(["7"] * 5) == (1, 0.0)
    number, entropy = answer_counts(["7", "8", "9", "10"])
    assert (number, entropy) == (4, pytest.approx(np.log(4)))
    assert answer_counts(["7", "7", "8"])[1] < np.log(2)


def test_words_are_runs_of_letters_or_single_signs_up_to_a_limit() -> None:
    assert words("x_1 = 12+\\frac") == ["x_1", "=", "12", "+", "\\", "frac"]
    assert len(words("a " * 2 * WORDS)) == WORDS


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    inside = [low <= 1.0 <= high for low, high in (mean_interval(rng.exponential(1.0, 60)) for _ in range(400))]
    assert 0.9 < np.mean(inside) < 0.98
    assert all(np.isnan(mean_interval(np.array([1.0]))))
