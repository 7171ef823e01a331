"""The status line."""

from merging.look import Family, Limit, Look
from merging.recipe import Expert, Recipe
from ui.panels.status import fresh, line_html

RECIPE = Recipe("resm", "base", (Expert("a"),), (("rank_budget", 0.33),))


def test_a_rank_that_does_not_fit_is_said():
    says = "Pictures and chat at rank budget 0.29: the factors of 0.33 would not fit the cache; an export uses 0.33."
    assert f">{says}</span>" in line_html(RECIPE, "live in 0.09 s", limit=Limit(0.29, 0.33))
    assert "cache" not in line_html(RECIPE, "live in 0.09 s")


def test_what_the_pictures_are_made_of_is_said():
    said = [fresh(Look("d", Family(("a",), (), (), 0), {}, {}, 0.25, tier=t)) for t in ("exact", "sketch", "sample")]
    assert said == ["live in 0.25 s", "sketch, exact numbers follow", "from a sample, exact numbers follow"]
