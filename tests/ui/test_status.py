"""The status line."""

from merging.analysis import Limit
from merging.recipe import Expert, Recipe
from ui.panels.status import line_html

RECIPE = Recipe("resm", "base", (Expert("a"),), (("rank_budget", 0.33),))


def test_a_rank_that_does_not_fit_is_said():
    says = "Pictures and chat at rank budget 0.29: the factors of 0.33 would not fit the cache; an export uses 0.33."
    assert f">{says}</span>" in line_html(RECIPE, "live in 0.09 s", limit=Limit(0.29, 0.33))
    assert "cache" not in line_html(RECIPE, "live in 0.09 s")
