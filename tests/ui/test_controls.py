"""What the browser is told of the knobs, and what is believed of its answer."""

from pathlib import Path

import pytest

from merging.methods import METHODS
from merging.recipe import parse_recipe
from ui.controls import desk, knobs, weights
from ui.session import desk_of, fresh_recipe, settings_of

TIES = """
merge_method: ties
base_model: base
models:
- model: a/helpful
  parameters: {weight: 1.0, density: 0.2}
- model: a/curt
  parameters: {weight: 2.5, density: 0.4}
parameters: {lambda: 1.0, normalize: true}
"""


def said(**values: object) -> dict[str, object]:
    return {"method": "ties", "said": values}


def rows(column: dict) -> dict[str, dict]:
    return {row["key"]: row for group in column["groups"] for row in group["rows"] if "key" in row}


@pytest.mark.parametrize("method", METHODS)
def test_every_knob_of_a_method_is_drawn_once_and_says_nothing_new(method: str):
    recipe = fresh_recipe(METHODS[method], "base", ("x", "y"), Path())
    keys = [row["key"] for group in knobs(recipe)["groups"] for row in group["rows"] if "key" in row]
    assert sorted(keys) == sorted(knob.key for knob in settings_of(METHODS[method]))
    untouched = {key: row["value"] for key, row in rows(knobs(recipe)).items()}
    assert desk(recipe, {"method": method, "said": untouched}) == desk_of(recipe)


def test_experts_stand_in_each_row_with_name_role_and_value():
    recipe = parse_recipe(TIES, Path())
    experts = [{"name": "helpful", "role": "helpful"}, {"name": "curt", "role": "honest"}]
    assert rows(weights(recipe))["weight"]["experts"] == experts
    assert rows(weights(recipe))["weight"]["value"] == (1.0, 2.5)
    assert rows(knobs(recipe))["density"]["value"] == (0.2, 0.4)


def test_a_number_that_the_recipe_gives_by_layer_is_marked():
    recipe = parse_recipe(TIES.replace("density: 0.4", "density: [0.3, 0.8]"), Path())
    density = rows(knobs(recipe))["density"]["experts"]
    assert [one.get("varies") for one in density] == [None, True]
    scaled = parse_recipe(TIES.replace("lambda: 1.0", "lambda: [{filter: q_proj, value: 0.5}, {value: 1.0}]"), Path())
    assert rows(knobs(scaled))["lambda"]["varies"] is True
    assert "varies" not in rows(knobs(recipe))["lambda"]


def test_a_shapers_own_knobs_are_there_while_it_is_chosen():
    column = rows(knobs(parse_recipe(TIES, Path())))
    assert "when" not in column["shaper"]
    assert column["svc_alpha"]["when"] == "shaper=svc"


def test_a_knob_of_some_choices_is_there_while_one_of_them_is_chosen():
    text = "merge_method: resm\nbase_model: base\nmodels: [{model: a}, {model: b}]\n"
    column = rows(knobs(parse_recipe(text, Path())))
    assert column["energy"]["when"] == "rank_mode=energy"
    assert column["outlier_strength"]["when"] == "outlier_mode=huber|drop|layer_suppress|layer_emphasise"
    assert "when" not in column["rank_budget"]
    text += "parameters: {rank_mode: [{filter: q_proj, value: energy}, {value: sparsity}]}\n"
    assert "when" not in rows(knobs(parse_recipe(text, Path())))["energy"]  # it acts on some matrices


def test_what_the_columns_say_is_read_and_the_rest_is_the_recipes():
    recipe = parse_recipe(TIES, Path())
    found = desk(recipe, {"method": "", "said": {"weight": [0.5, 2.5]}}, said(**{"lambda": 0, "normalize": False}))
    assert found.per_expert == {"weight": (0.5, 2.5), "density": (0.2, 0.4)}
    assert (found.knobs["lambda"], found.knobs["normalize"], found.knobs["shaper"]) == (0.0, False, "none")


@pytest.mark.parametrize(
    "column",
    [
        {},
        {"method": "linear", "said": {"lambda": 0.2}},  # sent before the other method's knobs had come
        {"method": "ties", "said": [1]},
        said(density=[0.1]),
        said(density=["x", None], normalize="yes", shaper="nothing"),
        said(**{"lambda": float("nan")}),
    ],
)
def test_words_of_another_method_and_words_that_do_not_fit_change_nothing(column: dict):
    recipe = parse_recipe(TIES, Path())
    assert desk(recipe, column) == desk_of(recipe)
