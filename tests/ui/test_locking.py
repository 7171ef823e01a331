"""Locks from the Map, on a family of two layers written out by hand."""

from dataclasses import replace
from pathlib import Path

from merging.look import family_of
from merging.recipe import Lock, parse_recipe
from ui.locking import holders, in_scope, taken_from
from ui.session import Session, recipe_of, undone, with_locks

RECIPE = parse_recipe("merge_method: ties\nbase_model: b\nmodels: [{model: a/helpful}, {model: a/honest}]", Path())
FAMILY = family_of(
    ("helpful", "honest"),
    {f"model.layers.{i}.{part}.weight": (4, 4) for i in range(2) for part in ("self_attn.q_proj", "mlp.down_proj")},
)
Q0, DOWN0, Q1, DOWN1 = FAMILY.matrices


def held_by(locks: tuple[Lock, ...]) -> list[str | None]:
    found = holders(replace(RECIPE, locks=locks), FAMILY.matrices)
    return [found.get(matrix.name) for matrix in (Q0, DOWN0, Q1, DOWN1)]


def test_a_scope_is_a_cell_a_layer_or_a_row():
    assert in_scope(FAMILY, Q1, "matrix") == [Q1]
    assert in_scope(FAMILY, Q1, "layer") == [Q1, DOWN1]
    assert in_scope(FAMILY, Q1, "kind") == [Q0, Q1]


def test_one_matrix_a_layer_and_a_kind_are_taken_from_a_model():
    one = taken_from(RECIPE, FAMILY, DOWN1, "matrix", "a/honest")
    assert one == (Lock("a/honest", ("model.layers.1.mlp.down_proj.weight",)),)
    assert held_by(one) == [None, None, None, "honest"]
    layer = taken_from(RECIPE, FAMILY, DOWN1, "layer", "base")
    assert layer == (Lock("base", ("model.layers.1.*",)),)
    assert held_by(layer) == [None, None, "base", "base"]
    kind = taken_from(RECIPE, FAMILY, DOWN1, "kind", "a/helpful")
    assert kind == (Lock("a/helpful", ("model.layers.*.mlp.down_proj.weight",)),)
    assert held_by(kind) == [None, "helpful", None, "helpful"]


def test_the_last_word_wins_and_says_it_once():
    first = taken_from(RECIPE, FAMILY, Q0, "matrix", "base")
    again = taken_from(replace(RECIPE, locks=first), FAMILY, Q0, "matrix", "a/honest")
    assert again == (Lock("a/honest", ("model.layers.0.self_attn.q_proj.weight",)),)
    wider = taken_from(replace(RECIPE, locks=again), FAMILY, Q0, "kind", "a/helpful")
    assert wider == (Lock("a/helpful", ("model.layers.*.self_attn.q_proj.weight",)),)
    crossed = taken_from(replace(RECIPE, locks=wider), FAMILY, Q1, "layer", "base")
    assert held_by(crossed) == ["helpful", None, "base", "base"]


def test_what_is_merged_again_leaves_the_rest_of_a_wider_lock():
    layer = taken_from(RECIPE, FAMILY, Q1, "layer", "base")
    freed = taken_from(replace(RECIPE, locks=layer), FAMILY, Q1, "matrix", None)
    assert freed == (Lock("base", ("model.layers.1.*",), ("model.layers.1.self_attn.q_proj.weight",)),)
    assert held_by(freed) == [None, None, None, "base"]
    assert taken_from(replace(RECIPE, locks=freed), FAMILY, Q1, "layer", None) == ()


def test_the_experts_of_a_mixture_share_a_cell_and_its_lock():
    mixture = family_of(("helpful",), {f"model.layers.0.mlp.experts.{e}.up_proj.weight": (4, 4) for e in range(3)})
    locks = taken_from(RECIPE, mixture, mixture.matrices[0], "matrix", "base")
    assert set(holders(replace(RECIPE, locks=locks), mixture.matrices).values()) == {"base"}
    assert len(holders(replace(RECIPE, locks=locks), mixture.matrices)) == 3


def test_a_lock_is_one_step_of_undo_and_goes_with_a_model_that_the_method_leaves_out():
    before = Session(replace(RECIPE, name="Balanced"), owner="o")
    after = with_locks(before, taken_from(RECIPE, FAMILY, Q0, "matrix", "a/honest"))
    assert (after.recipe.name, undone(after).recipe) == ("", before.recipe)
    assert "to: a/honest" in after.recipe.to_yaml()
    alone = replace(after, recipe=replace(after.recipe, method="slerp"))
    assert [e.model for e in recipe_of(alone).experts] == ["a/helpful"]
    assert recipe_of(alone).locks == ()
