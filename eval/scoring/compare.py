"""Compares recipes on the same probes: what was kept of each expert, who agrees with whom, which are the best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 1000
_SEED = 20250610


@dataclass(frozen=True)
class Agreement:
    """share: of probes that both pass or both fail. kappa: the same beyond chance, 1 at most; nan where chance is 1."""

    share: float
    kappa: float


def agreement(a: Sequence[bool], b: Sequence[bool]) -> Agreement:
    """Cohen's kappa of two models' passes on the same probes."""
    if not a or len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} answers cannot be compared")
    share = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
    yes_a, yes_b = sum(a) / len(a), sum(b) / len(b)
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    return Agreement(share, (share - chance) / (1 - chance) if chance < 1 else math.nan)


def retention(merge: float, base: float, best: float) -> float:
    """How much of the best expert's gain over the base a merge keeps: 0 the base, 1 the expert; nan without a gain."""
    return (merge - base) / (best - base) if best > base else math.nan


def front(scores: np.ndarray) -> np.ndarray:
    """Which rows of (recipes, sides) no other row beats: at least as good on every side and better on one."""
    as_good = np.all(scores[None] >= scores[:, None], axis=-1)
    better = np.any(scores[None] > scores[:, None], axis=-1)
    return np.logical_not(np.any(as_good & better, axis=1))


def front_chances(passed: np.ndarray, sides: Sequence[str], clusters: Sequence[str]) -> np.ndarray:
    """How surely each recipe belongs to the front, (recipes,): the share of bootstrap draws in which it does.

    passed: (recipes, probes) of 0 and 1 on the same probes; sides and clusters: of each probe. Clusters are drawn
    inside each side, so that every draw has all sides.
    """
    order = sorted(set(sides))
    rng = np.random.default_rng(_SEED)
    shares = np.empty((_DRAWS, len(passed), len(order)))
    for at, side in enumerate(order):
        columns = [i for i, one in enumerate(sides) if one == side]
        _, member = np.unique([clusters[i] for i in columns], return_inverse=True)
        n = int(member.max()) + 1
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS)
        total = np.stack([np.bincount(member, weights=row[columns], minlength=n) for row in passed.astype(float)])
        shares[:, :, at] = (drawn @ total.T) / (drawn @ np.bincount(member, minlength=n))[:, None]
    return np.mean([front(one) for one in shares], 0)
