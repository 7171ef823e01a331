"""The method's panel: what its card says of a recipe, and whose numbers a preset's are."""

import re
from dataclasses import replace
from pathlib import Path

from merging.recipe import Expert, Recipe, parse_recipe
from ui.panels.method import apply_preset, notice
from ui.session import Session, rolled


def recipe(method: str, *experts: str) -> Recipe:
    models = "".join(f"- model: a/{name}\n" for name in experts)
    return parse_recipe(f"merge_method: {method}\nbase_model: base\nmodels:\n{models}", Path())


def said(recipe: Recipe) -> str:
    return notice(Session(recipe, "o"))


def test_the_card_says_what_a_preset_is_and_which_weights_or_experts_do_not_count():
    three = ("helpful", "honest", "harmless")
    assert said(recipe("task_arithmetic", *three)) == ""
    assert said(replace(recipe("task_arithmetic", *three), note="Half of it.")) == "Half of it."
    assert said(recipe("m3", *three)) == "The weights above change nothing here."
    assert said(recipe("slerp", *three)).startswith("Merges one expert only, here helpful.")
    assert said(recipe("slerp", "helpful")) == "The weights above change nothing here."


def test_a_step_away_from_a_preset_leaves_a_line_where_its_note_was():
    preset = replace(recipe("task_arithmetic", "helpful", "honest"), note="Half of it.")
    moved = rolled(Session(preset, "o"))
    assert notice(moved) == "Undo takes back the last step."


def test_the_card_says_what_a_roll_has_drawn(family):
    mixed = replace(recipe("m3", "x", "y"), base="base", folder=family, experts=(Expert("helpful"), Expert("honest")))
    idle = "The weights above change nothing here."
    rolls = [said(replace(mixed, seed=seed)) for seed in range(3)]
    drawn = [re.fullmatch(rf"{idle} Shares drawn, of 100: helpful (\d+), honest (\d+)\.", one) for one in rolls]
    assert [sum(map(int, one.groups())) if one else 0 for one in drawn] == [100, 100, 100]
    assert len(set(rolls)) == 3
    assert said(replace(mixed, parameters=(("alpha", (0.1, 0.5)),))) == idle, "drawn anew for each layer"


def test_a_presets_numbers_are_for_the_experts_of_its_names_and_else_for_those_in_their_place():
    numbers = (("helpful", 0.25), ("honest", 0.3), ("harmless", 0.5))
    made = recipe("task_arithmetic", *(name for name, _ in numbers))
    preset = replace(
        made,
        experts=tuple(
            replace(expert, parameters=(("weight", w),)) for expert, (_, w) in zip(made.experts, numbers, strict=True)
        ),
    )

    def weights(*experts: str) -> list[object]:
        taken = apply_preset(recipe("ties", *experts), preset)
        return [dict(expert.parameters)["weight"] for expert in taken.experts]

    assert weights("my-harmless", "honest", "chatty") == [0.5, 0.3, 0.25]
    assert weights("a", "b", "c", "d") == [0.25, 0.3, 0.5, 0.5]
