"""The status line."""

from dataclasses import replace
from pathlib import Path

from eval.scoring.board import HScore, Scores
from merging.look import Family, Limit, Look
from merging.recipe import Expert, Recipe, parse_recipe
from ui.panels.status import line_html, tier

RECIPE = Recipe("resm", "base", (Expert("a"),), (("rank_budget", 0.33),))
LOOK = Look("d", Family(("a",), (), (), 0), {}, {}, 0.25)


def test_a_rank_that_does_not_fit_is_said():
    says = "Pictures and chat at rank budget 0.29: the factors of 0.33 would not fit the cache; an export uses 0.33."
    assert f">{says}</span>" in line_html(RECIPE, replace(LOOK, limit=Limit(0.29, 0.33)))
    assert "cache" not in line_html(RECIPE, LOOK)


def test_what_the_pictures_are_made_of_is_said():
    looks = [replace(LOOK, tier="sample"), replace(LOOK, tier="maps"), replace(LOOK, tier="sketch"), LOOK]
    assert [", ".join(tier(look)) for look in looks] == [
        "sample, exact numbers follow",
        "exact maps, the rest follows",
        "sketch, exact numbers follow",
        "exact, live in 0.25 s",
    ]
    assert tier(replace(LOOK, limit=Limit(0.29, 0.33))) == ("exact up to rank budget 0.29", "live in 0.25 s")
    assert 'class="live"><span class="tier">exact</span>, live in 0.25 s<' in line_html(RECIPE, LOOK)
    assert 'class="live stale"><span class="tier">sketch</span>' in line_html(RECIPE, replace(LOOK, tier="sketch"))


def test_the_widest_side_of_an_interval_is_said():
    sides = HScore(1.0, 0.89, 1.0, 30), HScore(0.5, 0.41, 0.59, 30), HScore(0.9, 0.8, 0.95, 30)
    html = line_html(RECIPE, LOOK, scores=Scores(*sides, mean=0.8, min=0.5, broken=0.0, well_formed=1.0))
    assert "<small>±11 at most</small>" in html


def test_a_knob_that_does_nothing_is_not_among_the_numbers():
    assert "outlier weight" in line_html(RECIPE, LOOK)
    idle = replace(RECIPE, parameters=(*RECIPE.parameters, ("outlier_mode", "none")))
    assert "outlier weight" not in line_html(idle, LOOK)
    assert "rank 0.33" in line_html(idle, LOOK)
    some = parse_recipe(
        "merge_method: resm\nbase_model: base\nmodels: [{model: a}]\n"
        "parameters: {outlier_mode: [{filter: q_proj, value: huber}, {value: none}]}\n", Path(),
    )  # fmt: skip
    assert "outlier weight" in line_html(some, LOOK)  # it acts on some matrices
