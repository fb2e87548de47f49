"""The formulas of the report, each with its source: from counts or texts to a number, None where it is undefined."""

import math
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence


def share(count: float, total: float) -> float | None:
    return count / total if total else None


def entropy(counts: Iterable[int]) -> float:
    """Shannon's entropy in nats (Bell System Technical Journal 27, 1948)."""
    known = [count for count in counts if count]
    total = sum(known)
    return max(0.0, -math.fsum(count / total * math.log(count / total) for count in known))


def effective_number(counts: Iterable[int]) -> float | None:
    """How many equally common kinds are as varied: exp(entropy), Hill number of order 1 (Hill, Ecology 54, 1973)."""
    known = [count for count in counts if count]
    return math.exp(entropy(known)) if known else None


def normalized_mutual_information(table: Mapping[tuple[Hashable, Hashable], int]) -> float | None:
    """2 I(X; Y) / (H(X) + H(Y)), normalised by the mean of the entropies (Kvalseth, IEEE Trans. SMC 17, 1987).

    0: the second tells nothing about the first; 1: each tells the other. None where both never vary.
    """
    first: Counter[Hashable] = Counter()
    second: Counter[Hashable] = Counter()
    for (one, other), count in table.items():
        first[one] += count
        second[other] += count
    of_first, of_second = entropy(first.values()), entropy(second.values())
    if not of_first + of_second:
        return None
    return max(0.0, 2 * (of_first + of_second - entropy(table.values())) / (of_first + of_second))


def auc(higher: Mapping[int, int], lower: Mapping[int, int]) -> float | None:
    """P(a value of `higher` is the larger one) + P(tie) / 2, from two histograms.

    Mann and Whitney's U over the number of pairs, which is the area under the ROC curve (Hanley and McNeil, Radiology
    143, 1982).
    """
    pairs = sum(higher.values()) * sum(lower.values())
    wins, below = 0, 0  # wins count double, so that ties stay whole numbers
    for value in sorted(higher.keys() | lower.keys()):
        wins += higher.get(value, 0) * (2 * below + lower.get(value, 0))
        below += lower.get(value, 0)
    return wins / (2 * pairs) if pairs else None


def median(histogram: Mapping[int, int]) -> float | None:
    """The median of a histogram; the mean of the middle two where their number is even."""
    total = sum(histogram.values())
    middle, seen = [], 0
    for value in sorted(histogram):
        for place in ((total - 1) // 2, total // 2):
            if seen <= place < seen + histogram[value]:
                middle.append(value)
        seen += histogram[value]
    return sum(middle) / 2 if middle else None


def distinct_ngrams(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Distinct n-grams over all n-grams of the texts: distinct-n (Li et al., arXiv 1510.03055)."""
    found = [ngram for words in texts for ngram in _ngrams(words, n)]
    return share(len(set(found)), len(found))


def compression_ratio(texts: Sequence[str]) -> float | None:
    """Bytes of the texts, one a line, over their bytes under zlib at level 9 (Shaib et al., arXiv 2403.00553)."""
    data = "\n".join(texts).encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data, 9)) if data else None


_MOST_WORDS = 4
_EPSILON = 0.1


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """Mean BLEU-4 of each text against all others: Self-BLEU (Zhu et al., arXiv 1802.01886).

    Sentence BLEU with equal weights up to 4-grams and the closest length. Where no n-gram is shared 0.1 counts as
    shared, method 1 of Chen and Cherry (WMT 2014), as in Texygen; without a shared word it is 0. A text's best count
    of an n-gram among the others is known from the best two counts among all.
    """
    if len(texts) < 2:
        return None
    grams = [[Counter(_ngrams(words, n)) for words in texts] for n in range(1, _MOST_WORDS + 1)]
    best = [_best_two(counters) for counters in grams]
    lengths = sorted(map(len, texts))
    scores = []
    for index, words in enumerate(texts):
        precisions = [_precision(of_n[index], index, best_of_n) for of_n, best_of_n in zip(grams, best, strict=True)]
        closest = _closest_other(len(words), lengths)
        penalty = 1.0 if len(words) > closest else math.exp(1 - closest / len(words)) if words else 0.0
        has_shared = words and precisions[0] >= 1 / len(words)
        mean = math.fsum(map(math.log, precisions)) / _MOST_WORDS
        scores.append(penalty * math.exp(mean) if has_shared else 0.0)
    return math.fsum(scores) / len(scores)


_Ngram = tuple[str, ...]
_BestTwo = dict[_Ngram, tuple[int, int, int]]
"""n-gram -> (most in one text, that text, most in another one)."""


def _best_two(counters: Sequence[Counter[_Ngram]]) -> _BestTwo:
    best: _BestTwo = {}
    for index, counter in enumerate(counters):
        for ngram, count in counter.items():
            most, holder, second = best.get(ngram, (0, -1, 0))
            best[ngram] = (count, index, most) if count > most else (most, holder, max(second, count))
    return best


def _precision(counter: Counter[_Ngram], index: int, best: _BestTwo) -> float:
    """Clipped n-grams over n-grams; _EPSILON where none is shared."""
    shared = 0
    for ngram, count in counter.items():
        most, holder, second = best[ngram]
        shared += min(count, second if holder == index else most)
    return (shared or _EPSILON) / max(1, counter.total())


def _closest_other(length: int, lengths: Sequence[int]) -> int:
    """The length nearest to one of sorted `lengths` among the others, the shorter of two."""
    at = bisect_left(lengths, length)
    neighbours = [lengths[place] for place in (at - 1, at + 1) if 0 <= place < len(lengths)]
    return min(neighbours, key=lambda other: (abs(other - length), other))


def _ngrams(words: Sequence[str], n: int) -> list[_Ngram]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
