"""What a number of probes can tell: intervals of shares and differences, tests, and the least difference to be seen.

Intervals are 95 %, tests two-sided. Probes about the same content (a cluster) count as one piece of evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, sqrt

import numpy as np

_Z = 1.959963984540054  # the normal quantile at 97.5 %
_Z_POWER = 0.8416212335729143  # at 80 %
_DRAWS = 4000
_SEED = 20250610


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Mean of a - b; `low` > 0 or `high` < 0 means that the probes can tell the two apart."""

    mean: float
    low: float
    high: float


def wilson(passed: float, n: float) -> Interval:
    """Wilson's score interval: never leaves 0..1 and does not collapse at 0 or n passed, as the plain one does."""
    if n == 0:
        return Interval(0.0, 1.0)
    share = passed / n
    centre = share + _Z**2 / (2 * n)
    spread = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def paired_difference(a: Sequence[bool | float], b: Sequence[bool | float], clusters: Sequence[str]) -> Difference:
    """Bootstrap over clusters (percentiles): probes about the same content are drawn together or not at all."""
    if not len(a) == len(b) == len(clusters):
        raise ValueError(f"lengths differ: {len(a)}, {len(b)}, {len(clusters)}")
    if not len(a):
        return Difference(0.0, 0.0, 0.0)
    gap = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    size = np.bincount(member).astype(float)
    total = np.bincount(member, weights=gap)
    drawn = _drawn(len(size))
    low, high = np.quantile(drawn @ total / (drawn @ size), [0.025, 0.975])
    return Difference(float(gap.mean()), float(low), float(high))


@lru_cache(maxsize=2)  # a board compares many pairs on the same clusters
def _drawn(n: int) -> np.ndarray:
    """How often each of n clusters is drawn (draws, n): counts need a matrix product instead of a gather per draw."""
    return np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), size=_DRAWS).astype(float)


def mcnemar(won: int, lost: int) -> float:
    """Mid-p of McNemar's exact test: how likely a split at least as uneven is between models that are equally good.

    won, lost: probes that only the first, only the second passes. The mid-p counts the split itself half, which keeps
    false alarms near their nominal rate where the exact test is too shy (Fagerland et al. 2013).
    """
    n, fewer = won + lost, min(won, lost)
    if won == lost:
        return 1.0
    tail = sum(comb(n, i) for i in range(fewer)) + comb(n, fewer) / 2
    return 2 * tail / 2**n


def holm(p: Sequence[float]) -> list[float]:
    """P-values of several tests together, in the same order: each is then worth as much as one alone (Holm 1979)."""
    found, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        found[i] = least
    return found


def least_difference(n: int, discordant: float) -> float | None:
    """The smallest difference that n probes show in 80 of 100 cases; None where even the largest is missed.

    discordant: share of probes that one model passes and the other fails, which bounds the difference.
    (Connor 1987: n d^2 = (z sqrt(p) + z' sqrt(p - d^2))^2, solved for d.)
    """

    def needed(d: float) -> float:
        return ((_Z * sqrt(discordant) + _Z_POWER * sqrt(discordant - d * d)) / d) ** 2

    if discordant <= 0 or n < needed(discordant):
        return None
    low, high = 0.0, discordant
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if needed(middle) <= n else (middle, high)
    return high


def luck_of_the_best(k: int) -> float:
    """By how many standard errors the best of k equally good recipes looks better than it is."""
    draws = np.random.default_rng(_SEED).standard_normal((20_000, k))
    return float(draws.max(1).mean())
