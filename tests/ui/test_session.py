"""The session's steps, on recipes written out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from merging.errors import UserError
from merging.methods import METHODS
from merging.recipe import parse_recipe
from ui.session import (
    Desk,
    Session,
    desk_of,
    fresh_recipe,
    moved,
    names_of,
    recipe_of,
    rolled,
    undone,
    with_method,
    with_recipe,
)

TIES = """
merge_method: ties
base_model: base
models:
- model: a/helpful
  parameters: {weight: 1.0, density: 0.2}
- model: a/honest
  parameters: {weight: 0.5, density: [0.1, 0.3]}
parameters: {lambda: 1.0, normalize: true}
"""


def session(text: str = TIES) -> Session:
    return Session(parse_recipe(text, Path()), owner="o")


def with_knob(desk: Desk, key: str, value: object) -> Desk:
    return replace(desk, knobs={**desk.knobs, key: value})  # type: ignore[dict-item]


def test_a_desk_shows_one_number_for_each_setting():
    desk = desk_of(session().recipe)
    assert (desk.knobs["lambda"], desk.knobs["normalize"]) == (1.0, True)
    assert (desk.knobs["space"], desk.knobs["shaper"]) == ("full", "none")  # shared with other methods
    assert desk.per_expert == {"weight": (1.0, 0.5), "density": (0.2, pytest.approx(0.2))}


def test_controls_that_repeat_the_recipe_are_no_move():
    before = session()
    assert moved(before, desk_of(before.recipe)) is before


def test_a_move_writes_its_own_setting_and_leaves_a_list_over_depth_as_written():
    after = moved(session(), with_knob(desk_of(session().recipe), "lambda", 0.5))
    assert dict(after.recipe.parameters)["lambda"] == 0.5
    assert dict(after.recipe.experts[1].parameters)["density"] == (0.1, 0.3)


def test_space_and_shaper_stand_in_the_recipe_only_where_they_do_something():
    before = session()
    shaped = moved(before, with_knob(desk_of(before.recipe), "shaper", "svc"))
    assert dict(shaped.recipe.parameters) == {"lambda": 1.0, "normalize": True, "shaper": "svc"}
    back = moved(shaped, with_knob(desk_of(shaped.recipe), "shaper", "none"))
    assert "shaper" not in dict(back.recipe.parameters)


def test_moving_a_per_expert_knob_writes_it_for_every_expert():
    desk = desk_of(session().recipe)
    after = moved(session(), replace(desk, per_expert={**desk.per_expert, "density": (0.4, 0.6)}))
    assert [dict(e.parameters)["density"] for e in after.recipe.experts] == [0.4, 0.6]


def test_each_roll_is_the_next_seed_and_a_step_of_undo():
    twice = rolled(rolled(session()))
    assert twice.recipe == replace(session().recipe, seed=2)
    assert [undone(twice).recipe.seed, undone(undone(twice)).recipe.seed] == [1, 0]
    assert moved(twice, with_knob(desk_of(twice.recipe), "lambda", 0.9)).recipe.seed == 2


def test_a_whole_drag_is_one_step_of_undo_and_the_next_knob_is_another():
    start = session()
    one = moved(start, with_knob(desk_of(start.recipe), "lambda", 0.9))
    two = moved(one, with_knob(desk_of(one.recipe), "lambda", 0.8))
    three = moved(two, with_knob(desk_of(two.recipe), "normalize", False))
    assert undone(three).recipe == two.recipe
    assert undone(undone(three)).recipe == start.recipe
    assert undone(start) is start


def test_another_method_takes_the_weights_along_and_none_of_the_old_knobs():
    recipe = with_method(session(), "task_arithmetic").recipe
    assert recipe.method == "task_arithmetic"
    assert dict(recipe.parameters) == {"lambda": 0.5, "normalize": False}
    assert [dict(e.parameters) for e in recipe.experts] == [{"weight": 1.0}, {"weight": 0.5}]


def test_a_method_that_was_tried_before_stands_as_it_was_left_but_for_the_weights():
    left = moved(session(), with_knob(desk_of(session().recipe), "lambda", 0.3))
    elsewhere = with_method(left, "task_arithmetic")
    desk = desk_of(elsewhere.recipe)
    elsewhere = moved(elsewhere, replace(desk, per_expert={"weight": (0.2, 0.4)}))
    back = with_method(elsewhere, "ties").recipe
    assert dict(back.parameters) == {"lambda": 0.3, "normalize": True, "rescale": False}
    assert [dict(e.parameters)["weight"] for e in back.experts] == [0.2, 0.4]
    assert [dict(e.parameters)["density"] for e in back.experts] == [0.2, pytest.approx(0.2)]


def test_slerp_takes_the_base_and_the_first_expert_with_a_weight():
    recipe = fresh_recipe(METHODS["slerp"], "base", ("x", "y", "z"), Path())
    first = replace(recipe.experts[0], parameters=(("weight", 0.0),))
    chosen = recipe_of(Session(replace(recipe, experts=(first, *recipe.experts[1:])), owner="o"))
    assert [e.model for e in chosen.experts] == ["y"]


def test_a_fresh_recipe_records_every_knob():
    for method in METHODS.values():
        recipe = fresh_recipe(method, "base", ("x", "y"), Path())
        written = {key for key, _ in (*recipe.parameters, *recipe.experts[0].parameters)}
        assert written == {"weight", *(knob.key for knob in method.knobs)}


def test_an_unknown_method_or_too_many_experts_are_refused():
    with pytest.raises(UserError, match="ties"):
        with_recipe(session(), replace(session().recipe, method="tiess"))
    seven = replace(session().recipe, experts=session().recipe.experts[:1] * 7)
    with pytest.raises(UserError, match="7"):
        with_recipe(session(), seven)


def test_twins_have_names_of_their_own():
    recipe = fresh_recipe(METHODS["ties"], "base", ("a/x", "b/x", "c/y"), Path())
    assert names_of(recipe) == ("x", "x 2", "y")


def test_a_recipe_with_slices_is_sent_to_the_command_line():
    sliced = parse_recipe("merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]", Path())
    with pytest.raises(UserError, match=r"has slices\. .*python -m merging merge"):
        with_recipe(session(), sliced)


CLUSTERS = """
{name: mild, merge_method: linear, base_model: base, models: [{model: a}, {model: b}]}
---
{name: kind, merge_method: linear, base_model: base, models: [{model: mild}, {model: c}]}
---
{merge_method: slerp, base_model: base, models: [{model: d}, {model: e}, {model: kind}]}
"""


def test_merges_may_be_experts_and_go_with_the_last_that_uses_them():
    after = with_recipe(session(), parse_recipe(CLUSTERS, Path()))
    assert names_of(after.recipe) == ("d", "e", "kind")
    assert [stage.name for stage in after.recipe.stages] == ["mild", "kind"]
    assert recipe_of(after).stages == (), "slerp merges two"
    assert [stage.name for stage in recipe_of(with_method(after, "ties")).stages] == ["mild", "kind"]
    without = replace(after.recipe, experts=after.recipe.experts[:2])
    assert with_recipe(after, without).recipe.stages == ()
    with pytest.raises(UserError, match="a merge for its base"):
        with_recipe(after, replace(after.recipe, base="kind"))
