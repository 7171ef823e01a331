"""Calibrated merges and the router against mixtures, TSV-M, RESM and the bound: pairs on the same probes and seeds.

Of each pair the difference of the mean and of the minimum. P-values are the bootstrap's, two-sided, and corrected
together for all the differences that are asked of a comparison (Holm); intervals are 95 % each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eval.paper.table import Comparison, Estimate, estimate
from eval.scoring.stats import holm

Verdict = Literal["above", "below", "level", "level or above", "level or below", "cannot tell"]
SURE = 0.05
LEVEL = 2.0  # points: an interval inside them says that the two are level, one above -2 that the row is not worse
RIVALS = ("TSV-M", "RESM")


@dataclass(frozen=True)
class Gap:
    found: Estimate
    p: float  # after Holm's correction

    @property
    def verdict(self) -> Verdict:
        if self.p < SURE:
            return "above" if self.found.value > 0 else "below"
        match self.found.low > -LEVEL, self.found.high < LEVEL:
            case True, True:
                return "level"
            case True, False:
                return "level or above"
            case False, True:
                return "level or below"
        return "cannot tell"

    def words(self) -> str:
        return f"{self.found.signed()}: {self.verdict}"


@dataclass(frozen=True)
class Pair:
    row: str
    other: str
    mean: Gap
    worst: Gap


def pairs(comparison: Comparison, *more: str) -> list[Pair]:
    """Empty where nothing was calibrated or routed. The rows `more` are rivals too."""
    rows = [row for row in comparison.ordered() if comparison.kinds[row] in ("calibrated", "router")]
    merges = [row for row in RIVALS if row in comparison.rows()]
    others = [*comparison.rows("mixture"), *merges, *comparison.rows("bound"), *more]
    return paired(comparison, [(row, other) for row in rows for other in others if other != row])


def paired(comparison: Comparison, asked: Sequence[tuple[str, str]]) -> list[Pair]:
    """Of each first row against the second, corrected for all that are asked."""
    means, least = ({row: of(found, 1) for row, found in comparison.scores.items()} for of in (np.mean, np.min))
    draws = [side[row] - side[other] for side in (means, least) for row, other in asked]
    gaps = [Gap(estimate(one), p) for one, p in zip(draws, holm([two_sided(one) for one in draws]), strict=True)]
    return [Pair(*two, gaps[i], gaps[len(asked) + i]) for i, two in enumerate(asked)]


def two_sided(draws: np.ndarray) -> float:
    """How likely a difference at least as far from 0 would be without any; draws as in a comparison's scores."""
    n = len(draws) - 1
    fewer = min(int((draws[1:] <= 0).sum()), int((draws[1:] >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (1 + n))
