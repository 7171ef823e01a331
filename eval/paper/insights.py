"""The three insights of the paper, each held against the numbers by a rule that was fixed before they were there.

They are about merges of weights alone: calibrated merges and routing, which the paper does not try, have no say here.

Confirmed, refuted or undecided *as measured*: on these tiny families, with these mixtures and settings.
"""

from dataclasses import dataclass
from typing import Literal

from eval.judging.probes import H
from eval.paper.table import Comparison, Estimate

Verdict = Literal["confirmed", "refuted", "undecided"]
SMALL = 2.0  # points that are too few to speak of collaboration or conflict
LEAST_GAIN = 1.0  # points that the paper's method gains over other merges at least (abstract of arXiv 2502.06876)
OWN = "RESM"


@dataclass(frozen=True)
class Insight:
    claim: str
    rule: str
    verdict: Verdict
    found: str


def insights(comparison: Comparison) -> list[Insight]:
    return [both_ways(comparison), merging_wins(comparison), parameters_decide(comparison)]


def both_ways(comparison: Comparison) -> Insight:
    """Of each expert on the two H that it was not trained for, against the base."""
    gaps: dict[tuple[str, str], Estimate] = {
        (expert, h): comparison.side_gap(expert, "base", h) for expert in H for h in H if h != expert
    }
    verdict = judge_both_ways(list(gaps.values()))
    (up, best), (down, worst) = (pick(gaps.items(), key=lambda one: one[1].value) for pick in (max, min))
    return Insight(
        "The three H both collaborate and conflict.",
        "Each expert against the base on the two H that it was not trained for: confirmed if one such difference is "
        f"surely above 0 and another surely below; refuted if none can be above {SMALL:.0f} points, or none below "
        f"−{SMALL:.0f}.",
        verdict,
        f"{up[0]} training moves {up[1]} by {best.signed()} at best; {down[0]} training moves {down[1]} by "
        f"{worst.signed()} at worst.",
    )


def judge_both_ways(gaps: list[Estimate]) -> Verdict:
    if any(gap.low > 0 for gap in gaps) and any(gap.high < 0 for gap in gaps):
        return "confirmed"
    none_up, none_down = all(gap.high < SMALL for gap in gaps), all(gap.low > -SMALL for gap in gaps)
    return "refuted" if none_up or none_down else "undecided"


def merging_wins(comparison: Comparison) -> Insight:
    """Of the merge chosen on validation probes, against each mixture."""
    merge, mixtures = comparison.chosen(), comparison.rows("mixture")
    assert merge
    gaps = [gap(merge, mixture) for gap in (comparison.mean_gap, comparison.worst_gap) for mixture in mixtures]
    mean, worst = comparison.mean_gap(merge, *mixtures), comparison.worst_gap(merge, *mixtures)
    return Insight(
        "Merging balances the three H better than mixing data.",
        "The data-free merge with the best validation score against each of the three mixtures, in the mean and in the "
        "minimum of the three H: confirmed if all six differences are surely above 0, refuted if all are surely below.",
        judge_all(gaps),
        f"{merge} against the mixtures' average: mean {mean.signed()}, minimum {worst.signed()}.",
    )


def judge_all(gaps: list[Estimate]) -> Verdict:
    if all(gap.low > 0 for gap in gaps):
        return "confirmed"
    return "refuted" if all(gap.high < 0 for gap in gaps) else "undecided"


def parameters_decide(comparison: Comparison) -> Insight:
    """Of the paper's own method, which prunes and mitigates outliers, against every other merge."""
    gaps = {row: comparison.mean_gap(OWN, row) for row in comparison.rows() if row != OWN}
    nearest = min(gaps, key=lambda row: gaps[row].value)
    plain = gaps["TSV-M"]
    return Insight(
        "What decides is conflict resolved in the parameters: prune redundant parts, mitigate outliers.",
        f"{OWN}, which does both, against every other data-free merge, in the mean of the three H: confirmed if it is "
        f"surely above all; refuted if it stays below the {LEAST_GAIN:.0f} point that the paper gains at least, over "
        "TSV-M, the same merge without the two.",
        judge_own(list(gaps.values()), plain),
        f"{OWN} against TSV-M {plain.signed()}; against its strongest rival, {nearest}, {gaps[nearest].signed()}.",
    )


def judge_own(gaps: list[Estimate], plain: Estimate) -> Verdict:
    if all(gap.low > 0 for gap in gaps):
        return "confirmed"
    return "refuted" if plain.high < LEAST_GAIN else "undecided"
