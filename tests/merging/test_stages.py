"""A merge that feeds a merge: the same bytes as by way of a folder, and every problem of all documents at once."""

import json

import pytest

from merging.__main__ import main
from merging.errors import UserError
from merging.models import open_model
from merging.plan import check, make_plan
from merging.recipe import load_recipe, parse_recipe
from tests.pico import make_family

FIRST = """merge_method: {first}
base_model: base
models: [{{model: helpful}}, {{model: honest}}]
dtype: {dtype}
"""
LAST = """merge_method: {last}
base_model: base
models: [{{model: {model}, parameters: {{weight: 0.7}}}}, {{model: harmless}}]
"""


@pytest.fixture
def family(tmp_path):
    make_family(tmp_path)
    return tmp_path


def export(folder, text, out):
    (folder / f"{out}.yml").write_text(text)
    assert main(["merge", str(folder / f"{out}.yml"), str(folder / out)]) == 0
    return (folder / out / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("first", "last", "dtype"),
    [("ties", "task_arithmetic", "float16"), ("linear", "linear", "bfloat16"), ("resm", "resm", "bfloat16")],
)
def test_the_same_bytes_as_by_way_of_a_folder(family, first, last, dtype):
    one, two = FIRST.format(first=first, dtype=dtype), LAST.format(last=last, model="mixed")
    if first == "resm":
        one += "parameters: {rank_mode: sparsity_budget}\n"
    staged = export(family, f"{two}---\nname: mixed\n{one}", "staged")
    export(family, one, "mixed")
    assert export(family, two, "plain") == staged
    config = [json.loads((family / out / "config.json").read_text()) for out in ("staged", "plain")]
    assert config[0] == config[1]


def test_a_stage_as_the_base_and_a_stage_of_a_stage(family):
    low = "name: low\n" + FIRST.format(first="linear", dtype="float32")
    middle = "---\nname: middle\nmerge_method: linear\nmodels: [{model: low}, {model: harmless}]\n"
    top = "---\nname: top\nmerge_method: task_arithmetic\nbase_model: low\nmodels: [{model: middle}]\n"
    recipe = parse_recipe(low + middle + top, family)
    assert [stage.name for stage in recipe.stages] == ["low", "middle"]
    assert recipe.sources == ("base", "helpful", "honest", "harmless")
    assert parse_recipe(recipe.to_yaml(), family) == recipe
    plan = make_plan(recipe)
    # low + 1 * (middle - low): the middle one again
    name = "model.layers.0.mlp.up_proj.weight"
    models = {n: open_model(n, family).read(name).float() for n in ("helpful", "honest", "harmless")}
    mean = (models["helpful"] + models["honest"]) / 2
    assert (plan.base.read(name) - mean).abs().max() < 1e-6
    assert (plan.experts[0].read(name) - (mean + models["harmless"]) / 2).abs().max() < 1e-6
    assert plan.estimate.seconds > 0


def test_what_an_export_notes_names_the_folders_behind_the_stages(family):
    first, last = FIRST.format(first="ties", dtype="bfloat16"), LAST.format(last="ties", model="mixed")
    text = f"name: mixed\n{first}---\n{last}"
    export(family, text, "out")
    assert load_recipe(family / "out" / "mergescope.yml").stages[0].name == "mixed"
    facts = json.loads((family / "out" / "mergescope.json").read_text())
    assert [source["model"] for source in facts["sources"]] == ["base", "harmless", "helpful", "honest"]


A = "merge_method: linear\nmodels: [{model: helpful}]\n"
OF_A, OF_B = A.replace("helpful", "a"), A.replace("helpful", "b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{A}---\n{A}", "document 1: only the last merge may lack a name"),
        (f"name: a\n{A}---\nname: a\n{A}---\n{A}", "two documents are named 'a'"),
        (f"name: a\n{A}---\n{A}", "a: no other document uses it"),
        (f"name: a\n{OF_B}---\nname: b\n{OF_A}---\n{OF_A}", "the merges need each other: a needs b needs a"),
        (f"name: a\n{OF_A}---\n{OF_A}", "need each other: a needs a"),
        ("---\n".join(f"name: n{i}\n{A}" for i in range(40)), "more than 32 documents"),
        (f"name: a\n{A}---\nmodels: 3\n", "document 2, merge_method: a recipe names its method"),
    ],
)  # fmt: skip
def test_documents_that_do_not_fit_together(family, text, says):
    with pytest.raises(UserError) as caught:
        parse_recipe(text, family)
    assert says in str(caught.value)


def test_problems_of_all_documents_are_listed_at_once(family):
    text = f"name: mixed\n{A}parameters: {{weigth: 1}}\nchat_template: chatml\n---\n"
    text += "merge_method: linear\nmodels: [{model: mixed}, {model: nowhere}, {model: mixd}]\n"
    checked = check(parse_recipe(text, family))
    told = [str(problem) for problem in checked.problems]
    assert checked.plan is None
    assert [part for part in told if part.startswith("mixed, chat_template: ")]
    assert [part for part in told if part.startswith("mixed, parameters: `linear` has no setting 'weigth'")]
    assert [part for part in told if part.startswith("the last merge, nowhere: ")]
    assert [part for part in told if part.startswith("the last merge, mixd: ") and "Did you mean `mixed`?" in part]
    assert all(problem.fix is None for problem in checked.problems)
