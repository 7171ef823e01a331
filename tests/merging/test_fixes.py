"""Applying a problem's fix makes that problem go away, and changes nothing else."""

import json
import pickle

import pytest
import yaml

from merging.errors import Fix, UserError, all_of
from merging.fixes import apply_fix, mend_text
from merging.plan import check
from merging.recipe import parse_recipe
from tests.merging.test_bad_input import config, weights

RECIPE = """merge_method: ties
base_model: base
models:
- model: helpful
  parameters: {weight: 0.5, density: 0.5}
- model: honest
parameters: {lambda: 1.0}
"""


def problems_of(recipe):
    return [part for problem in check(recipe).problems for part in problem.parts or (problem,)]


def widen(tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"].repeat(2)


@pytest.mark.parametrize(
    ("text", "code", "label", "changed"),
    [
        (RECIPE.replace("ties", "tise"), "E_METHOD", "Use ties", {"merge_method": "ties"}),
        (RECIPE.replace("lambda:", "lamda:"), "E_KEY", "Write `lambda`", {"parameters": {"lambda": 1.0}}),
        (RECIPE.replace("density:", "densty:"), "E_KEY", "Write `density`", {"models": [
            {"model": "helpful", "parameters": {"weight": 0.5, "density": 0.5}}, {"model": "honest"}]}),
        (RECIPE.replace("lambda: 1.0", "qqqq: 1.0"), "E_KEY", "Leave `qqqq` out", {"parameters": None}),
        (RECIPE.replace("density: 0.5", "density: 1.5"), "E_SETTING", "Use 1", {"models": [
            {"model": "helpful", "parameters": {"weight": 0.5, "density": 1.0}}, {"model": "honest"}]}),
        (RECIPE.replace("lambda: 1.0", "normalize: maybe"), "E_SETTING", "Use normalize's default",
         {"parameters": None}),
        (RECIPE.replace("base_model: base\n", ""), "E_BASE", "Take helpful as the base", {"base_model": "helpful"}),
        (RECIPE.replace("helpful", "nowhere"), "E_MODEL_MISSING", "Leave nowhere out", {"models": [
            {"model": "honest"}]}),
        (RECIPE + "tokenizer_source: nowhere\n", "E_MODEL_MISSING", "Use the base's vocabulary",
         {"tokenizer_source": "base"}),
        (RECIPE + "chat_template: chatmal\n", "E_TEMPLATE", "Keep the base's template", {"chat_template": None}),
        (RECIPE.replace("ties", "slerp").replace("density: 0.5", "density: 0.5").replace("- model: honest",
         "- model: base\n- model: honest"), "E_MODELS", "Merge only the first 2", {"models": [
            {"model": "helpful", "parameters": {"weight": 0.5, "density": 0.5}}, {"model": "base"}]}),
        ("merge_method: linear\nmodels:\n- model: helpful\n  parameters: {weight: 1}\n- model: honest\n"
         "  parameters: {weight: -1}\n", "E_WEIGHTS", "Do not normalize the weights",
         {"parameters": {"normalize": False}}),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)  # fmt: skip
def test_a_fix_of_the_recipe(family, text, code, label, changed):
    recipe = parse_recipe(text, family)
    [problem] = [problem for problem in problems_of(recipe) if problem.code == code]
    assert problem.fix is not None
    assert problem.fix.label == label
    mended = apply_fix(recipe, problem.fix)
    assert code not in [left.code for left in problems_of(mended)]
    before, after = yaml.safe_load(recipe.to_yaml()), yaml.safe_load(mended.to_yaml())
    for key in before.keys() | after.keys():
        assert after.get(key) == changed.get(key, None if key in changed else before.get(key)), key
    assert mended.folder == family


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: weights(folder, widen),
        lambda folder: weights(folder, lambda tensors: tensors.pop("model.norm.weight")),
        lambda folder: config(folder, model_type="mistral"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: config(folder, hidden_size=0, vocab_size=-1),
    ],
    ids=["shape", "lacking", "architecture", "no config", "two faults"],
)
def test_an_expert_that_does_not_fit_is_left_out(family, damage):
    damage(family / "helpful")
    recipe = parse_recipe(RECIPE, family)
    found = problems_of(recipe)
    assert found
    for problem in found:
        assert problem.fix is not None
        assert problem.fix.label == "Leave helpful out"
        assert problems_of(apply_fix(recipe, problem.fix)) == []


def test_the_base_and_the_last_model_are_not_left_out(family):
    (family / "base" / "config.json").unlink()
    assert [problem.fix for problem in problems_of(parse_recipe(RECIPE, family))] == [None]
    only = "merge_method: ties\nbase_model: honest\nmodels: [{model: nowhere}]\n"
    assert [problem.fix for problem in problems_of(parse_recipe(only, family))] == [None]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (RECIPE.replace("base_model", "base_modle"), "Write `base_model`"),
        (RECIPE + "dtype: int4\n", "Write bfloat16"),
        (RECIPE + "seed: -1\n", "Use seed 0"),
        (RECIPE.replace("  parameters: {weight", "  paramters: {weight"), "Write `parameters`"),
        (RECIPE + "zzzzzz: 1\n", "Leave `zzzzzz` out"),
    ],
)
def test_a_fix_of_the_text_where_it_is_no_recipe_yet(family, text, label):
    with pytest.raises(UserError) as caught:
        parse_recipe(text, family)
    assert caught.value.fix is not None
    assert caught.value.fix.label == label
    assert check(parse_recipe(mend_text(text, caught.value.fix), family)).problems == ()


def test_a_fix_of_another_recipe_is_refused(family):
    recipe = parse_recipe(RECIPE, family)
    for at in (("models", 7, "parameters", "weight"), ("seed", 1), ("parameters", "none")):
        with pytest.raises(UserError, match="changed since"):
            apply_fix(recipe, Fix("x", "drop", at))


def test_a_fix_travels_with_its_error():
    fix = Fix("Use the base's vocabulary", "set", ("tokenizer_source",), "base")
    one, other = UserError("E_A", "a", fix=fix), UserError("E_B", "b")
    error = pickle.loads(pickle.dumps(all_of([one, other])))
    assert [part.fix for part in error.parts] == [fix, None]
    assert all_of([one]).fix == fix
    told = json.loads(json.dumps(one.to_dict()))["fix"]
    assert told == {"label": fix.label, "action": "set", "at": ["tokenizer_source"], "value": "base"}
    assert "fix" not in other.to_dict()
