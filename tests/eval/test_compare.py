import math

import numpy as np
import pytest

from eval.scoring.compare import agreement, front, front_chances, retention


def test_agreement_by_hand() -> None:
    # Of ten probes both pass 4, both fail 3, only a passes 2, only b passes 1: chance .6 x .5 + .4 x .5 = .5.
    a = [True] * 4 + [False] * 3 + [True] * 2 + [False]
    b = [True] * 4 + [False] * 3 + [False] * 2 + [True]
    found = agreement(a, b)
    assert found.share == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)


def test_agreement_at_its_ends() -> None:
    assert agreement([True, False], [True, False]).kappa == 1.0
    assert agreement([True, False], [False, True]).kappa == -1.0
    assert math.isnan(agreement([True, True], [True, True]).kappa)  # nothing to tell by
    with pytest.raises(ValueError, match="2 and 1 answers"):
        agreement([True, True], [True])


@pytest.mark.parametrize(
    ("merge", "base", "best", "kept"), [(0.7, 0.4, 0.9, 0.6), (0.4, 0.4, 0.9, 0.0), (0.3, 0.4, 0.9, -0.2)]
)
def test_retention(merge: float, base: float, best: float, kept: float) -> None:
    assert retention(merge, base, best) == pytest.approx(kept)


def test_an_expert_without_a_gain_keeps_nothing() -> None:
    assert math.isnan(retention(0.5, 0.4, 0.4))


def test_the_front_is_what_nobody_beats() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.5], [0.1, 0.9], [0.5, 0.5]])
    assert front(scores).tolist() == [True, True, False, True, True]  # equal points do not beat each other


def test_a_sure_loser_is_never_on_the_front_and_a_near_tie_is_half() -> None:
    rng = np.random.default_rng(0)
    n = 200
    strong, like_it = rng.random((2, 2 * n)) < 0.8
    weak = rng.random(2 * n) < 0.2
    chances = front_chances(np.stack([strong, like_it, weak]), ["a"] * n + ["b"] * n, [str(i) for i in range(2 * n)])
    assert chances[2] == 0.0
    assert 0.2 < chances[0] <= 1.0
    assert 0.2 < chances[1] <= 1.0


def test_one_content_alone_decides_nothing() -> None:
    # One content, asked 50 times: every draw is that content, so the winner wins every time.
    passed = np.array([[1] * 50, [0] * 50])
    assert front_chances(passed, ["a"] * 50, ["same"] * 50).tolist() == [1.0, 0.0]
