"""The comparison of methods on Town, from headers alone."""

from benchmarks.town_methods import defaults, grid
from merging.plan import check


def test_every_merge_that_is_tried_can_be_made():
    tried = [each for first in defaults() for each in (first, *grid(first.method))]
    assert {"slerp", "ties", "resm"} < {each.method for each in tried}
    assert [(str(each), found) for each in tried if (found := check(each.recipe()).problems)] == []
