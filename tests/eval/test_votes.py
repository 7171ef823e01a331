"""Votes: counted as they are, and turned into strengths only where there are enough."""

import numpy as np
import pytest

from eval.scoring.votes import Vote, counts, fit, strengths


def test_counts_by_hand():
    votes = [Vote("a", "b", "left"), Vote("b", "a", "left"), Vote("a", "b", "tie"), Vote("b", "c", "bad")]
    found = counts(votes)
    assert found["a"] == {"won": 1, "lost": 1, "tied": 1}
    assert found["b"] == {"won": 1, "lost": 1, "tied": 1, "bad": 1}
    assert found["c"] == {"bad": 1}


def test_two_models_have_the_odds_of_their_decided_votes():
    # Of 1,000 votes 600 for a, 200 for b, 200 ties: p_a / p_b = 3, whatever the ties; the ridge takes a little of it.
    rows = np.array([[0, 1, 0]] * 300 + [[1, 0, 1]] * 300 + [[0, 1, 1]] * 200 + [[1, 0, 2]] * 200)
    strength = fit(rows, 2)
    assert strength[0] - strength[1] == pytest.approx(np.log(3), abs=0.01)
    assert strength.sum() == pytest.approx(0, abs=1e-9)


def test_a_model_that_never_lost_stays_finite_and_both_bad_is_a_tie():
    assert np.isfinite(fit(np.array([[0, 1, 0]] * 50), 2)).all()
    tied = np.array([[0, 1, 0]] * 30 + [[0, 1, 1]] * 10 + [[0, 1, 2]] * 20)
    bad = tied.copy()
    bad[-20:, 2] = 3
    assert fit(tied, 2) == pytest.approx(fit(bad, 2))


def test_ranks_come_with_fifty_votes_and_are_as_wide_as_the_votes_are_even():
    clear = [Vote("good", "poor", "left")] * 40 + [Vote("poor", "good", "left")] * 10
    assert strengths(clear[:49]) == []
    good, poor = strengths(clear)
    assert (good.model, good.first, good.last) == ("good", 1, 1)
    assert (poor.model, poor.first, poor.last) == ("poor", 2, 2)
    assert good.share > 0.6
    even = [Vote("x", "y", "left"), Vote("y", "x", "left")] * 30
    assert [(one.first, one.last) for one in strengths(even)] == [(1, 2), (1, 2)]
