"""Pairs of the comparison: who is asked against whom, Holm's correction, and the words for it."""

import numpy as np
import pytest

from eval.paper.pairs import Gap, Verdict, pairs, two_sided
from eval.paper.table import BOUND, Estimate, compare
from tests.eval.test_paper_table import PROBES, scored


def test_calibrated_and_routed_rows_meet_mixtures_tsv_m_resm_and_the_bound() -> None:
    records = [
        *(scored(h, "1111 1111 1111", method="expert", validation=()) for h in ("helpful", "honest", "harmless")),
        scored("Fixed ratio", "1111 1111 0000", method="mixture", validation=()),
        scored("TIES", "1111 1111 1111"),
        scored("TSV-M", "1111 1111 1111", method="tsv_m"),
        scored("RESM", "1111 1111 1111", method="resm"),
        scored("RegMean", "1111 1111 1111", method="regmean"),
        scored("Answer router", "0000 1111 1111", method="router", validation=()),
    ]
    comparison = compare(records, PROBES)
    assert comparison
    found = {(pair.row, pair.other): pair for pair in pairs(comparison)}
    others = ("Fixed ratio", "TSV-M", "RESM", BOUND)
    assert set(found) == {(row, other) for row in ("RegMean", "Answer router") for other in others}
    assert found["RegMean", "TSV-M"].mean.words() == "+0.0 (+0.0 to +0.0): level"
    assert found["RegMean", "Fixed ratio"].worst.words() == "+100.0 (+100.0 to +100.0): above"
    assert found["Answer router", BOUND].mean.verdict == "below"


def test_without_calibrated_rows_there_are_no_pairs() -> None:
    comparison = compare([scored("TSV-M", "1111 1111 1111", method="tsv_m")], PROBES)
    assert comparison
    assert pairs(comparison) == []


def test_p_counts_draws_on_the_other_side_twice() -> None:
    # 4 draws, one of them at or below 0: 2 (1 + 1) / (1 + 4).
    assert two_sided(np.array([9.0, 3, 2, 1, -1])) == pytest.approx(0.8)
    assert two_sided(np.array([9.0, 3, 2, 1, 4])) == pytest.approx(0.4)
    assert two_sided(np.zeros(5)) == 1


@pytest.mark.parametrize(
    ("found", "p", "verdict"),
    [
        (Estimate(1, 0.2, 1.8), 0.04, "above"),
        (Estimate(-5, -9, -1), 0.04, "below"),
        (Estimate(1, 0.2, 1.8), 0.06, "level"),  # not sure to be above, sure to be near
        (Estimate(1, -0.5, 2.5), 0.3, "level or above"),
        (Estimate(-1, -2.5, 0.5), 0.3, "level or below"),
        (Estimate(1, -2, 2.5), 0.3, "cannot tell"),
    ],
)
def test_the_words_for_a_difference(found: Estimate, p: float, verdict: Verdict) -> None:
    assert Gap(found, p).verdict == verdict
