"""Recipes: mergekit's YAML in, the same out, and settings resolved as mergekit resolves them."""

from pathlib import Path

import pytest

from merging.errors import UserError
from merging.recipe import Expert, Recipe, load_recipe, parse_recipe
from merging.sources import spelled_out
from merging.values import Case, resolve

HERE = Path()
RECIPE = """
merge_method: ties
base_model: models/base
models:
- model: models/helpful
  parameters: {weight: 0.5, density: [0, 0.5, 1]}
- model: models/honest
  parameters:
    weight:
    - {filter: mlp, value: [1.0, 0.25]}
    - {filter: self_attn, value: 0.6}
    - value: 0.1
parameters: {normalize: false, lambda: 1e-3}
dtype: float32
seed: 7
"""


def test_it_reads_every_form_of_a_setting():
    recipe = parse_recipe(RECIPE, HERE)
    assert (recipe.method, recipe.base, recipe.dtype, recipe.seed) == ("ties", "models/base", "float32", 7)
    assert recipe.experts[0] == Expert("models/helpful", (("weight", 0.5), ("density", (0, 0.5, 1))))
    assert recipe.experts[1].parameters[0][1][1] == Case("self_attn", 0.6)
    assert dict(recipe.parameters) == {"normalize": False, "lambda": 0.001}  # PyYAML reads 1e-3 as text
    assert [expert.name for expert in recipe.experts] == ["helpful", "honest"]
    assert hash(recipe) == hash(parse_recipe(RECIPE, HERE))


def test_what_it_writes_it_reads_back():
    recipe = parse_recipe(RECIPE, HERE)
    assert parse_recipe(recipe.to_yaml(), HERE) == recipe
    bare = Recipe("resm", "base", (Expert("a"), Expert("b")))
    assert bare.to_yaml() == "merge_method: resm\nbase_model: base\nmodels:\n- model: a\n- model: b\n"


@pytest.mark.parametrize(
    ("setting", "tensor", "depth", "value"),
    [
        (0.4, "x", 0.7, 0.4),
        ((0.0, 0.5, 1.0), "x", 0.0, 0.0),
        ((0.0, 0.5, 1.0), "x", 0.25, 0.25),
        ((0.0, 0.5, 2.0), "x", 0.75, 1.25),
        ((0.0, 0.5, 2.0), "x", 1.0, 2.0),
        ((3.0,), "x", 0.5, 3.0),
        ((Case("mlp", (0.0, 1.0)), Case(None, 9.0)), "layers.1.mlp.up", 0.5, 0.5),
        ((Case("mlp", 1.0), Case(None, 9.0)), "layers.1.attn.q", 0.5, 9.0),
        ((Case("mlp", 1.0), Case("*", 9.0)), "layers.1.attn.q", 0.5, 9.0),
        ((Case("mlp", 1.0),), "layers.1.attn.q", 0.5, None),
        (("*embed*", "*head*"), "x", 0.5, ("*embed*", "*head*")),
    ],
)
def test_settings_resolve_as_in_mergekit(setting, tensor, depth, value):
    assert resolve(setting, tensor, depth) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a recipe is a mapping"),
        ("[1, 2]", "a recipe is a mapping"),
        ("merge_method: [", "not readable as YAML"),
        ("merge_method: ties\nmerge_method: resm\nmodels: [{model: a}]", "stands twice"),
        ("merge_method: ties\nmodels: []", "at least one model"),
        ("merge_method: ties\nmodels: [{modle: a}]", "an entry is `model: FOLDER`"),
        ("merge_method: ties\nmodels: [{model: a}]\nbase_modle: b", "Did you mean `base_model`?"),
        ("models: [{model: a}]", "names its method"),
        ("merge_method: ties\nmodels: [{model: a, parameters: [1]}]", "must be a mapping"),
        ("merge_method: ties\nmodels: [{model: a}]\nparameters: {weight: {a: {b: 1}}}", "a list of numbers"),
        ("merge_method: ties\nmodels: [{model: a}]\nparameters: {weight: [1, {value: 2}]}", "a list of numbers"),
        ("merge_method: ties\nmodels: [{model: a}]\ndtype: int4", "is none of float32, float16, bfloat16"),
        ("merge_method: ties\nmodels: [{model: a}]\nseed: -1", "whole number"),
        ("merge_method: ties\nmodels: [{model: a}]\nseed: true", "whole number"),
        ("merge_method: ties\nslices: []\nmodels: [{model: a}]", "not both"),
        ("a: " + "[" * 30 + "]" * 30, "nested deeper"),
        ("a: &a [1]\nb: *b", "refers to itself or to nothing"),
        ("a: &a [*a]", "refers to itself or to nothing"),
        ("x: " + "y" * 300_000, "larger than 200,000 characters"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("merge_method: 2020-99-99\nmodels: [{model: a}]", "cannot read"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_plain_message(text, says):
    with pytest.raises(UserError) as caught:
        parse_recipe(text, HERE)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


def test_aliases_that_grow_are_refused_before_they_are_built():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(UserError, match="more than 20,000 values"):
        parse_recipe("\n".join(lines), HERE)


def test_every_fault_is_listed_at_once():
    with pytest.raises(UserError) as caught:
        parse_recipe("merge_method: 3\nmodels: [{model: ''}]\ncolour: red\nseed: x", HERE)
    assert str(caught.value).startswith("4 problems:")


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match="no such recipe file"):
        load_recipe(tmp_path / "none.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load_recipe(tmp_path / "binary.yml")


def test_spelled_out_a_recipe_is_the_same_merge_from_anywhere(tmp_path: Path):
    text = """
merge_method: ties
base_model: ./ground
models: [{model: ./honest}, {model: owner/name}]
tokenizer_source: ./honest
locks: [{tensors: ["*"], to: ./honest}, {tensors: ["*"], to: base}]
"""
    found = spelled_out(parse_recipe(text, tmp_path))
    assert found.base == str(tmp_path / "ground")
    assert [expert.model for expert in found.experts] == [str(tmp_path / "honest"), "owner/name"]
    assert found.tokenizer_source == str(tmp_path / "honest")
    assert [lock.to for lock in found.locks] == [str(tmp_path / "honest"), "base"]
