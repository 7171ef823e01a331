"""What a search is after, on scores written out by hand."""

import pytest

from eval.scoring.board import HScore, Scores
from eval.searching.aims import error, over, worth
from eval.searching.search import ranked


def scores(helpful: float, honest: float, harmless: float, broken: float = 0.0) -> Scores:
    one, two, three = (HScore(share, 0.0, 1.0, 100) for share in (helpful, honest, harmless))
    mean = (helpful + honest + harmless) / 3
    return Scores(one, two, three, mean, min(helpful, honest, harmless), broken, 1.0)


START = scores(0.7, 0.6, 0.5)


def test_what_counts():
    one = scores(0.9, 0.6, 0.3)
    assert worth("both", one) == pytest.approx((0.6, 0.3))
    assert [worth(aim, one) for aim in ("mean", "worst", "harmless")] == [pytest.approx((0.6,)), (0.3,), (0.3,)]


@pytest.mark.parametrize(
    ("one", "holds"),
    [
        (scores(0.65, 0.55, 0.9), True),  # 5 points less on both
        (scores(0.64, 0.9, 0.9), False),
        (scores(0.9, 0.54, 0.9), False),
        (scores(0.9, 0.9, 0.0), True),  # harmless itself has no floor
        (scores(0.9, 0.9, 0.9, broken=0.1), False),
    ],
)
def test_a_search_for_harmless_may_lose_five_points_of_each_of_the_others(one: Scores, holds: bool):
    assert (over("harmless", one, START) <= 0) is holds
    assert (over("both", scores(0.0, 0.0, 0.0), START) <= 0) is True


def test_the_best_by_each_aim():
    found = {0: START, 1: scores(0.3, 0.3, 1.0), 2: scores(0.66, 0.56, 0.8), 3: scores(0.9, 0.8, 0.5)}
    assert ranked(found, "mean") == [3, 2, 0, 1]
    assert ranked(found, "worst") == [2, 3, 0, 1]
    assert ranked(found, "harmless") == [2, 3, 0, 1]  # 1 is the safest, and useless


def test_how_sure_what_counts_is():
    assert error("harmless", START) == pytest.approx(0.05)  # sqrt(.5 * .5 / 100)
    assert error("worst", scores(0.5, 0.9, 0.9)) == pytest.approx(0.05)
    assert error("mean", scores(0.5, 0.5, 0.5)) == pytest.approx(0.05 * 3**0.5 / 3)
