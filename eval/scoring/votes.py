"""Blind votes between two models' answers: how strong each model is, by Bradley and Terry with Davidson's ties.

A beats B with p_A / (p_A + p_B + nu sqrt(p_A p_B)), they tie with nu sqrt(p_A p_B) over the same (Davidson 1970). A
weak ridge on log p keeps a model that never lost from running away.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Result = Literal["left", "right", "tie", "bad"]  # `bad`: both; it counts as a tie
RESULTS: tuple[Result, ...] = ("left", "right", "tie", "bad")
ENOUGH = 50  # votes; with fewer, two that flip change who leads
_RIDGE = 0.1
_DRAWS = 200
_SEED = 20250610


@dataclass(frozen=True)
class Vote:
    """`left` and `right` are models, named as the voter sees them afterwards."""

    left: str
    right: str
    result: Result


@dataclass(frozen=True)
class Strength:
    """Chance to win a decided vote against the average model, 0..1, and the 95 % interval of the rank (1 is best)."""

    model: str
    share: float
    first: int
    last: int


def counts(votes: Sequence[Vote]) -> dict[str, Counter[str]]:
    """Of each model: won, lost, tied, bad."""
    found: dict[str, Counter[str]] = {}
    for vote in votes:
        for model, side, other in ((vote.left, "left", "right"), (vote.right, "right", "left")):
            word = {side: "won", other: "lost", "tie": "tied", "bad": "bad"}[vote.result]
            found.setdefault(model, Counter())[word] += 1
    return found


def strengths(votes: Sequence[Vote]) -> list[Strength]:
    """The strongest first; ranks by bootstrap over votes. Nothing under ENOUGH votes: counts say all there is then."""
    if len(votes) < ENOUGH:
        return []
    models = sorted({model for vote in votes for model in (vote.left, vote.right)})
    rows = np.array([[models.index(v.left), models.index(v.right), RESULTS.index(v.result)] for v in votes])
    rng = np.random.default_rng(_SEED)
    drawn = [fit(rows[rng.integers(len(rows), size=len(rows))], len(models)) for _ in range(_DRAWS)]
    ranks = np.array([(-found[:, None] < -found[None, :]).sum(0) + 1 for found in drawn])
    first, last = np.quantile(ranks, [0.025, 0.975], axis=0).round().astype(int)
    whole = fit(rows, len(models))
    order = np.argsort(-whole)
    return [Strength(models[i], float(1 / (1 + np.exp(-whole[i]))), int(first[i]), int(last[i])) for i in order]


def fit(rows: np.ndarray, n: int) -> np.ndarray:
    """log p of each of n models, mean 0, from rows of (left, right, index into RESULTS)."""
    from scipy.optimize import minimize  # a third of a second, which the live worker's start need not wait for

    left, right, result = rows.T

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        strength, tie = values[:n], values[n]
        gap = (strength[left] - strength[right]) / 2
        logits = np.stack([gap, -gap, np.full_like(gap, tie)], 1)  # of left, right, tie: p_A / sqrt(p_A p_B) and so on
        top = logits.max(1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(logits - top).sum(1))
        outcome = np.minimum(result, 2)
        chance = np.exp(logits - total[:, None])
        pull = chance.copy()
        pull[np.arange(len(rows)), outcome] -= 1
        slope = np.zeros(n + 1)
        np.add.at(slope, left, (pull[:, 0] - pull[:, 1]) / 2)
        np.add.at(slope, right, (pull[:, 1] - pull[:, 0]) / 2)
        slope[n] = pull[:, 2].sum()
        value = float((total - logits[np.arange(len(rows)), outcome]).sum() + _RIDGE / 2 * (values**2).sum())
        return value, slope + _RIDGE * values

    found = minimize(loss, np.zeros(n + 1), jac=True, method="L-BFGS-B").x[:n]
    return found - found.mean()
