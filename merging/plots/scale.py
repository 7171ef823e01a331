"""Colour scales of the conflict measures, in hundredths: fixed by family and measure, never rescaled by a slider."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from merging.look import Conflict, Measure


@dataclass(frozen=True)
class Scale:
    """`first` and `last` are the values at the bar's left and right end; the left one may be the greater."""

    ramp: str
    first: float
    last: float
    left: str
    right: str
    note: str

    @property
    def ends(self) -> tuple[str, str]:
        return signed(self.first), signed(self.last)


def signed(value: float) -> str:
    """A whole number with a true minus; never a minus before zero."""
    whole = round(float(value))
    return f"−{-whole}" if whole < 0 else str(whole)


def hundredths(share: float) -> str:
    return signed(100 * share)


def scale_of(conflict: Conflict) -> Scale:
    values = 100 * conflict.values[np.isfinite(conflict.values)]
    kinds: dict[Measure, Scale] = {
        "sign": _both_ways("pull together", "pull apart", "50 = chance", values, 50, (4, 8, 16, 32, 50)),
        "cosine": _both_ways("pull together", "pull apart", "0 = unrelated", -values, 0, (10, 20, 40, 100), sign=-1),
        "shared": _one_way("own directions", "shared", "of 100", values, (10, 20, 40, 100)),
        "interference": _one_way("apart", "in each other’s way", "0 = none", values, (25, 50, 100, 200, 400)),
        "kept": Scale("wash", 0, 100, "lost", "kept", "100 = points its way"),
        "output": Scale("wash", 0, 100, "lost", "kept", "0 = as the base"),
    }
    return kinds[conflict.measure]


def _both_ways(left: str, right: str, note: str, values: np.ndarray, centre: float, steps: Sequence[float], *,
               sign: int = 1) -> Scale:  # fmt: skip
    half = _smallest(np.abs(values - centre), steps)
    return Scale("conflict", sign * (centre - half), sign * (centre + half), left, right, note)


def _one_way(left: str, right: str, note: str, values: np.ndarray, steps: Sequence[float]) -> Scale:
    return Scale("wash", 0, _smallest(values, steps), left, right, note)


def _smallest(values: np.ndarray, steps: Sequence[float]) -> float:
    """The smallest step that holds 98 % of the cells."""
    need = float(np.quantile(values, 0.98)) if values.size else 0.0
    return next((step for step in steps if step >= need), steps[-1])
