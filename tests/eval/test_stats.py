import numpy as np
import pytest

from benchmarks.coverage import simulate
from eval.scoring.stats import holm, least_difference, luck_of_the_best, mcnemar, paired_difference, wilson


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # the textbook example
        (50, 100, 0.4038, 0.5962),
        (0, 10, 0.0, 0.2775),  # z^2 / (n + z^2): not a point at zero failures
        (10, 10, 0.7225, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_gives_the_known_intervals(passed: int, n: int, low: float, high: float) -> None:
    interval = wilson(passed, n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_equal_results_differ_by_exactly_nothing() -> None:
    same = [True, False, True]
    gap = paired_difference(same, same, ["a", "b", "c"])
    assert (gap.mean, gap.low, gap.high) == (0.0, 0.0, 0.0)


def test_a_sure_win_has_no_spread() -> None:
    gap = paired_difference([True] * 5, [False] * 5, list("abcde"))
    assert (gap.mean, gap.low, gap.high) == (1.0, 1.0, 1.0)


def test_independent_probes_give_the_normal_interval() -> None:
    # 30 won, 10 lost of 200: mean 0.1, standard error sqrt((0.2 - 0.01) / 200) = 0.0308.
    a = [True] * 30 + [False] * 10 + [True] * 160
    b = [False] * 30 + [True] * 10 + [True] * 160
    gap = paired_difference(a, b, [str(i) for i in range(200)])
    assert gap.mean == pytest.approx(0.1)
    assert gap.low == pytest.approx(0.1 - 1.96 * 0.0308, abs=0.006)
    assert gap.high == pytest.approx(0.1 + 1.96 * 0.0308, abs=0.006)


def test_four_wordings_of_one_content_are_no_new_evidence() -> None:
    a, b, names = [True, False, True, True], [False, True, False, True], ["a", "b", "c", "d"]
    once, fourfold = paired_difference(a, b, names), paired_difference(a * 4, b * 4, names * 4)
    assert (once.low, once.high) == (fourfold.low, fourfold.high)
    alone = paired_difference(a * 4, b * 4, [str(i) for i in range(16)])
    assert alone.high - alone.low < 0.7 * (once.high - once.low)


def test_the_same_call_gives_the_same_interval() -> None:
    a, b, names = [True, False, True, True], [False, False, True, False], ["a", "b", "c", "d"]
    assert paired_difference(a, b, names) == paired_difference(a, b, names)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="lengths differ: 2, 1, 2"):
        paired_difference([True, True], [True], ["a", "b"])


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [
        (0, 0, 1.0),
        (7, 7, 1.0),
        (1, 0, 0.5),  # 2 (1/2) / 2
        (0, 5, 0.03125),  # 2 (1/2) / 32
        (8, 2, 0.065430),  # 2 (1 + 10 + 45/2) / 1024
        (30, 10, 0.001450),  # 2 (sum_{i<10} C(40, i) + C(40, 10) / 2) / 2^40
    ],
)
def test_mcnemar_by_hand(won: int, lost: int, p: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p, abs=5e-6)
    assert mcnemar(lost, won) == mcnemar(won, lost)


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04; never less than the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("n", "discordant", "points"),
    [(80, 0.2, 14), (120, 0.2, 11), (240, 0.2, 8), (480, 0.2, 6), (80, 0.3, 17), (120, 0.3, 14), (480, 0.3, 7)],
)
def test_what_so_many_probes_can_show(n: int, discordant: float, points: int) -> None:
    found = least_difference(n, discordant)
    assert found is not None
    assert round(100 * found) == points


def test_too_few_probes_show_nothing() -> None:
    assert least_difference(18, 0.2) is None  # even if one model wins all four
    assert least_difference(100, 0.0) is None


def test_the_least_difference_is_seen_in_80_of_100_cases() -> None:
    n, discordant = 240, 0.2
    d = least_difference(n, discordant)
    assert d
    rng = np.random.default_rng(1)
    won, lost, _ = rng.multinomial(n, [(discordant + d) / 2, (discordant - d) / 2, 1 - discordant], size=2000).T
    seen = np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b in zip(won, lost, strict=True)])
    assert 0.77 < seen < 0.84


@pytest.mark.parametrize(("k", "errors"), [(1, 0.0), (12, 1.63), (24, 1.95), (96, 2.5)])
def test_the_best_of_many_is_lucky(k: int, errors: float) -> None:
    assert luck_of_the_best(k) == pytest.approx(errors, abs=0.02)


@pytest.mark.parametrize(("n", "rate"), [(80, 0.5), (80, 0.8), (300, 0.9), (90, 0.4)])
def test_wilson_covers_the_true_rate(n: int, rate: float) -> None:
    passed = np.random.default_rng(0).binomial(n, rate, size=2000)
    intervals = [wilson(int(p), n) for p in passed]
    assert 0.93 <= np.mean([i.low <= rate <= i.high for i in intervals]) <= 0.97


def test_the_bootstrap_covers_the_true_difference_and_seldom_cries_wolf() -> None:
    covered, alarms = simulate(150)
    assert covered >= 0.9
    assert alarms <= 0.09  # `python -m benchmarks.coverage` counts 2,000
