import pytest

from eval.stats import paired_difference, wilson


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
