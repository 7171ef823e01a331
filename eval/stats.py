"""Intervals for shares and for differences on the same probes. All are 95 %."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

_Z = 1.959963984540054  # the normal quantile at 97.5 %
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


def wilson(passed: int, n: int) -> Interval:
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
    # How often each cluster is drawn: multinomial counts need one matrix product instead of a gather per draw.
    drawn = np.random.default_rng(_SEED).multinomial(len(size), np.full(len(size), 1 / len(size)), size=_DRAWS)
    low, high = np.quantile(drawn @ total / (drawn @ size), [0.025, 0.975])
    return Difference(float(gap.mean()), float(low), float(high))
