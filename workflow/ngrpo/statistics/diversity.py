"""How different a problem's sampled answers and responses are from one another.

- **Final answers**: how many different ones there are, and the entropy of their shares, -Σ p ln p in nats: the discrete
  form of semantic entropy (Farquhar, Kossen, Kuhn and Gal, Nature 630, 2024), whose classes of meaning are here final
  answers. The plug-in estimate lies below the truth, the more the fewer samples; of equal n it compares.
- **distinct-n**: different n-grams by all n-grams (Li, Galley, Brockett, Gao and Dolan, NAACL 2016).
- **self-BLEU**: each response's BLEU against the others, on average (Zhu et al., "Texygen", SIGIR 2018): BLEU-4 with
  equal weights and brevity penalty (Papineni et al., ACL 2002), and 0.1 in place of a count of no match (method 1 of
  Chen and Cherry, 2014). The higher, the more alike.

A word is a run of letters, digits and underscores, or one other sign. Departure: both measures of text look at the
first WORDS words of a response, because both depend on length, and so that long responses cost no more.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from scipy import stats

WORDS = 512
"""Words of a response that measures of text look at."""
ORDER = 4
"""The longest n-grams of BLEU."""
NO_MATCH = 0.1
"""What counts in place of no match at all."""
_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """The first WORDS words of a text."""
    return [match[0] for match, _ in zip(_WORD.finditer(text), range(WORDS), strict=False)]


def answer_counts(answers: Sequence[str]) -> tuple[int, float]:
    """How many different answers there are, and the entropy of their shares in nats; (0, 0) of none."""
    if not answers:
        return 0, 0.0
    shares = np.array(list(Counter(answers).values()), dtype=float) / len(answers)
    return len(shares), abs(float(-(shares * np.log(shares)).sum()))


def distinct(responses: Sequence[Sequence[str]], n: int) -> float:
    """distinct-n of a problem's responses, each a list of words; nan where none has n words."""
    grams = list(chain.from_iterable(_grams(response, n) for response in responses))
    return len(set(grams)) / len(grams) if grams else float("nan")


def self_bleu(responses: Sequence[Sequence[str]]) -> float:
    """Self-BLEU of a problem's responses, each a list of words; nan of fewer than two that hold a word."""
    spoken = [response for response in responses if response]
    if len(spoken) < 2:
        return float("nan")
    counts = [[Counter(_grams(response, n)) for n in range(1, ORDER + 1)] for response in spoken]
    most = [_two_largest([of[n] for of in counts]) for n in range(ORDER)]
    lengths = [len(response) for response in spoken]
    return float(np.mean([_bleu(i, counts[i], most, lengths) for i in range(len(spoken))]))


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean over problems; nan of fewer than two problems. values: (N,), one a problem."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _grams(response: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(response[i:] for i in range(n)), strict=False))


def _two_largest(counts: Sequence[Counter]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Of every n-gram its two largest counts in a response: the largest in any other response is one of them."""
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for one in counts:
        for gram, count in one.items():
            first, second = largest.get(gram, (0, 0))
            largest[gram] = (count, first) if count > first else (first, max(count, second))
    return largest


def _bleu(own: int, counts: Sequence[Counter], most: Sequence[dict], lengths: Sequence[int]) -> float:
    """BLEU of one response against all others. counts: its n-grams, by n; most: `_two_largest` of all, by n."""
    length, others = lengths[own], [size for i, size in enumerate(lengths) if i != own]
    logs = []
    for grams, largest in zip(counts, most, strict=True):
        total = max(1, sum(grams.values()))
        matched = 0
        for gram, count in grams.items():
            first, second = largest[gram]
            matched += min(count, second if count == first else first)
        logs.append(np.log((matched or NO_MATCH) / total))
    closest = min(others, key=lambda size: (abs(size - length), size))
    penalty = min(0.0, 1 - closest / length)
    return float(np.exp(np.mean(logs) + penalty))
