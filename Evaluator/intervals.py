"""Confidence intervals of proportions."""

import math
from collections.abc import Callable


def exact_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of `count` out of `total` (Biometrika 26, 1934). (0, 1) for a total of 0."""
    if not total:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
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
