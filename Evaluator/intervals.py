"""Confidence intervals and tests of proportions, single and paired."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


def exact_interval(count: int, total: int) -> tuple[float, float]:
    """Clopper and Pearson's exact 95 % interval of `count` out of `total` (Biometrika 26, 1934); (0, 1) for none."""
    if not total:
        return 0.0, 1.0
    tail = 0.025
    low = _solve(lambda p: _at_most(count - 1, total, p), 1 - tail) if count else 0.0
    high = _solve(lambda p: _at_most(count, total, p), tail) if count < total else 1.0
    return low, high


def _solve(falling: Callable[[float], float], target: float) -> float:
    """Where a function that falls from 1 to 0 over [0, 1] passes `target`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > target else (low, middle)
    return (low + high) / 2


def _at_most(count: int, total: int, p: float) -> float:
    """P(X <= count) of a binomial distribution."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return float(count >= total)
    log_p, log_q, log_total = math.log(p), math.log1p(-p), math.lgamma(total + 1)
    return math.fsum(
        math.exp(log_total - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * log_p + (total - k) * log_q)
        for k in range(count + 1)
    )


def wilson_interval(count: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of `count` out of `total` (JASA 22, 1927). (0, 1) for a total of 0."""
    if not total:
        return 0.0, 1.0
    share, z = count / total, Z95
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def paired_difference_interval(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired proportions, second minus first.

    The four counts are of pairs in which both, only the first, only the second, or neither succeeded. Newcombe's
    method 10, which joins two Wilson intervals (Statistics in Medicine 17, 1998, 2635-2650). (-1, 1) without pairs.
    """
    total = both + first + second + neither
    if not total:
        return -1.0, 1.0
    p_first, p_second = (both + first) / total, (both + second) / total
    low_first, high_first = wilson_interval(both + first, total)
    low_second, high_second = wilson_interval(both + second, total)
    correlation = _phi(both, first, second, neither)
    difference = p_second - p_first

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(0.0, down * down - 2 * correlation * down * up + up * up))

    low = difference - reach(p_second - low_second, high_first - p_first)
    high = difference + reach(p_first - low_first, high_second - p_second)
    return max(-1.0, low), min(1.0, high)


def _phi(both: int, first: int, second: int, neither: int) -> float:
    """Newcombe's corrected phi of a 2x2 table: 0 where a margin is empty, continuity corrected where it is positive."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    product = both * neither - first * second
    if product > 0:
        product = max(0.0, product - (both + first + second + neither) / 2)
    return product / math.sqrt(margins)


def mcnemar_p(first: int, second: int) -> float:
    """Exact two-sided p of McNemar's test: do the discordant pairs fall like a fair coin?

    The sign test on the pairs in which only the first, or only the second, succeeded (Psychometrika 12, 1947).
    """
    total = first + second
    if not total:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    return min(1.0, 2 * tail / 2**total)


def sign_flip_p(differences: Sequence[int]) -> float:
    """Exact two-sided p of the randomisation test on paired differences (Fisher, The Design of Experiments, 1935).

    The share of all ways to give each difference a sign in which their sum is at least as far from 0 as it is. Where
    every difference is -1, 0 or 1 this is McNemar's exact test.
    """
    sums = Counter({0: 1})
    for size in map(abs, differences):
        if size:
            sums = Counter({at: sums[at - size] + sums[at + size] for one in sums for at in (one - size, one + size)})
    as_far = sum(ways for at, ways in sums.items() if abs(at) >= abs(sum(differences)))
    return as_far / sums.total()


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979, 65-70), in the order given."""
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted
