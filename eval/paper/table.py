"""The table of the paper's comparison: shares with intervals, differences on the same probes and seeds.

Only whole units count, so that all rows rest on the same ones. One row is no model: the bound answers each H by its
own expert, which tells what is lost by merging and what the experts never knew. Families and paradigms count alike, and
the seeds of one count alike. Intervals (95 %) are percentiles of a bootstrap that draws probe clusters inside each H
and seeds inside each family and paradigm, the same for all rows. With one seed they know nothing of the spread over
seeds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.judging.probes import H, Probe
from eval.paper.records import Record, unmarked
from merging.methods import METHODS

DRAWS = 4000
_SEED = 20250610
Unit = tuple[str, str, int]  # family, paradigm, seed
Group = tuple[str, str]
BOUND = "Right expert for each H"
PARTS = {
    "Trained on mixed data": ("mixture",),
    "Whole answers routed": ("bound", "router"),
    "Calibrated merges": ("calibrated",),
    "Data-free merges": ("data-free",),
    "Sources": ("base", "expert"),
}


@dataclass(frozen=True)
class Estimate:
    """In hundredths."""

    value: float
    low: float
    high: float

    def words(self) -> str:
        return f"{self.value:.1f} ({self.low:.0f} to {self.high:.0f})"

    def signed(self) -> str:
        return f"{self.value:+.1f} ({self.low:+.1f} to {self.high:+.1f})".replace("-", "−")


@dataclass(frozen=True)
class Comparison:
    """scores: by row, (1 + draws, H) in hundredths; the first is what was measured, the others bootstrap draws.

    seeds: of each family and paradigm. validated: the best validation score of each row that was tuned, 0..1.
    """

    scores: dict[str, np.ndarray]
    kinds: dict[str, str]  # as in PARTS
    seeds: dict[Group, int]
    means: dict[str, dict[Group, float]]
    validated: dict[str, float]

    def rows(self, *kinds: str) -> list[str]:
        """Those of these kinds; without any, the data-free merges, which are the paper's."""
        return [row for row, kind in self.kinds.items() if kind in (kinds or ("data-free",))]

    def parts(self) -> dict[str, list[str]]:
        """The rows by what they need; in each part the best mean first."""
        found = {part: sorted(self.rows(*kinds), key=lambda row: -self.mean(row).value)
                 for part, kinds in PARTS.items()}  # fmt: skip
        return {part: rows for part, rows in found.items() if rows}

    def ordered(self) -> list[str]:
        return [row for rows in self.parts().values() for row in rows]

    def chosen(self, kind: str = "data-free") -> str | None:
        """The row of a kind whose validation score is the best."""
        return max(self.rows(kind), key=lambda row: self.validated[row], default=None)

    def side(self, row: str, h: str) -> Estimate:
        return estimate(self.scores[row][:, H.index(h)])

    def mean(self, row: str) -> Estimate:
        return estimate(self.scores[row].mean(1))

    def worst(self, row: str) -> Estimate:
        return estimate(self.scores[row].min(1))

    def side_gap(self, row: str, other: str, h: str) -> Estimate:
        at = H.index(h)
        return estimate(self.scores[row][:, at] - self.scores[other][:, at])

    def mean_gap(self, row: str, *others: str) -> Estimate:
        """Difference of the means; against several rows, to the mean of theirs."""
        return estimate(self.scores[row].mean(1) - np.mean([self.scores[other].mean(1) for other in others], 0))

    def worst_gap(self, row: str, *others: str) -> Estimate:
        return estimate(self.scores[row].min(1) - np.mean([self.scores[other].min(1) for other in others], 0))


def estimate(draws: np.ndarray) -> Estimate:
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return Estimate(float(draws[0]), float(low), float(high))


def widest(records: Sequence[Record]) -> list[Record]:
    """Those of the largest table without a gap: while a new row is in a few units only, it waits."""
    units = {row: {one.unit for one in records if one.row == row} for row in {one.row for one in records}}
    tables = []
    for least in sorted({len(found) for found in units.values()}):
        rows = [row for row, found in units.items() if len(found) >= least]
        tables.append((rows, set.intersection(*(units[row] for row in rows))))
    rows, whole = max(tables, key=lambda table: len(table[0]) * len(table[1]), default=([], set()))
    return [one for one in records if one.row in rows and one.unit in whole]


def whole_units(records: Sequence[Record]) -> list[Unit]:
    """Units that have every row that any unit has."""
    rows = {record.row for record in records}
    found = Counter(record.unit for record in {(one.unit, one.row): one for one in records}.values())
    return [unit for unit, n in found.items() if n == len(rows)]


def compare(records: Sequence[Record], probes: Sequence[Probe], draws: int = DRAWS) -> Comparison | None:
    """None while no unit is whole. `probes` are the test probes in their order."""
    units = whole_units(records)
    if not units:
        return None
    of = {(record.row, record.unit): record for record in records}
    rows = list(dict.fromkeys(record.row for record in records))
    kinds = {row: _kind(of[row, units[0]].method) for row in rows}
    groups = list(dict.fromkeys(unit[:2] for unit in units))
    passed = np.array([[unmarked(of[row, unit].passed, len(probes)) for unit in units] for row in rows], dtype=float)
    tried = {row: [max(of[row, unit].validation, default=0.0) for unit in units] for row in rows}
    if set(H) <= set(rows):
        own = [passed[rows.index(probe.h), :, i] for i, probe in enumerate(probes)]
        passed = np.concatenate([passed, np.stack(own, -1)[None]])
        rows, kinds[BOUND] = [*rows, BOUND], "bound"
    rng = np.random.default_rng(_SEED)
    by_unit = _seed_weights(units, groups, rng, draws)
    sides = []
    for h in H:
        at = [i for i, probe in enumerate(probes) if probe.h == h]
        weights = _cluster_weights([probes[i].cluster for i in at], rng, draws)
        shares = weights @ passed[:, :, at].reshape(-1, len(at)).T  # (1 + draws, rows x units)
        sides.append(np.einsum("dru,du->rd", shares.reshape(-1, len(rows), len(units)), by_unit))
    scores = dict(zip(rows, 100 * np.stack(sides, -1), strict=True))
    means = {
        row: {group: 100 * float(np.mean([found[i] for i, unit in enumerate(units) if unit[:2] == group]))
              for group in groups}
        for row, found in zip(rows, passed, strict=True)
    }  # fmt: skip
    seeds = {group: sum(unit[:2] == group for unit in units) for group in groups}
    validated = {row: float(by_unit[0] @ np.array(scores)) for row, scores in tried.items()}
    return Comparison(scores, kinds, seeds, means, validated)


def _kind(method: str) -> str:
    if method in METHODS:
        return "calibrated" if METHODS[method].calibrated else "data-free"
    return method


def _cluster_weights(clusters: Sequence[str], rng: np.random.Generator, draws: int) -> np.ndarray:
    """Share of each probe in the score, (1 + draws, probes)."""
    _, member = np.unique(np.array(clusters), return_inverse=True)
    n = int(member.max()) + 1
    drawn = np.concatenate([np.ones((1, n), dtype=int), rng.multinomial(n, np.full(n, 1 / n), size=draws)])
    weights = drawn[:, member].astype(float)
    return weights / weights.sum(1, keepdims=True)


def _seed_weights(units: Sequence[Unit], groups: Sequence[Group], rng: np.random.Generator, draws: int) -> np.ndarray:
    """Share of each unit in the score, (1 + draws, units)."""
    weights = np.zeros((1 + draws, len(units)))
    for group in groups:
        at = [i for i, unit in enumerate(units) if unit[:2] == group]
        n = len(at)
        drawn = np.concatenate([np.ones((1, n), dtype=int), rng.multinomial(n, np.full(n, 1 / n), size=draws)])
        weights[:, at] = drawn / (n * len(groups))
    return weights
