"""Slices, stages and locks that cannot be meant: exit 2, one plain message, nothing at OUT, sources untouched."""

import pytest

from tests.merging.test_bad_input import refused
from tests.pico import make_family

SLICES = """
merge_method: linear
slices:
- sources: [{model: helpful, layer_range: [0, 1]}, {model: honest, layer_range: [1, 2]}]
  parameters: {weight: 0.5}
- sources: [{model: harmless, layer_range: [0, 2]}]
"""
LOCKS = """
merge_method: ties
base_model: base
models: [{model: helpful}, {model: ./honest}]
locks: [{tensors: ["*.mlp.*"], except: ["*.1.*"], to: helpful}]
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    make_family(folder)
    return folder


def changed(old, new, text=SLICES):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(SLICES + "models: [{model: base}]", "not both", id="slices and models"),
        pytest.param("merge_method: linear\nslices: []", "at least one slice", id="no slices"),
        pytest.param("merge_method: linear\nslices: 3", "at least one slice", id="slices is a number"),
        pytest.param("merge_method: linear\nslices: [{sources: []}]", "at least one source", id="no sources"),
        pytest.param("merge_method: linear\nslices: [3]", "slice 1: a slice lists", id="a slice is a number"),
        pytest.param("merge_method: linear\nmodules: {a: 1}", "modules: not read yet", id="modules"),
        pytest.param(changed("{model: helpful, ", "{modle: helpful, "), "source 1: an entry is", id="no model"),
        pytest.param(changed("sources: [{model: harm", "source: [{model: harm"), "at least one source", id="source"),
        pytest.param(changed("[0, 1]", "[0, 2]"), "ranges of 1, 2 layers", id="unequal lengths"),
        pytest.param(changed("[0, 1]", "[1, 0]"), "must be two whole numbers", id="backwards"),
        pytest.param(changed("[0, 1]", "[1, 1]"), "must be two whole numbers", id="empty"),
        pytest.param(changed("[0, 1]", "[-1, 0]"), "must be two whole numbers", id="below zero"),
        pytest.param(changed("[0, 1]", "[0.0, 1]"), "must be two whole numbers", id="no whole number"),
        pytest.param(changed("[0, 1]", "[false, true]"), "must be two whole numbers", id="switches"),
        pytest.param(changed("[0, 1]", "3"), "layer_range is 3", id="one number"),
        pytest.param(changed(", layer_range: [0, 1]", ""), "layer_range is None", id="no range"),
        pytest.param(changed("[0, 2]", "[1, 3]"), "ends at 3, but harmless has 2", id="past the end"),
        pytest.param(changed("[0, 2]", "[0, 999999999999]"), "but harmless has 2", id="far past the end"),
        pytest.param(changed("harmless", "nowhere"), "nowhere", id="missing folder"),
        pytest.param(changed("weight", "wieght"), "Did you mean `weight`?", id="unknown setting of a slice"),
        pytest.param(changed("[0, 2]}", "[0, 2], parameters: {wieght: 1}}"), "slice 2, harmless", id="of a source"),
        pytest.param(changed("[0, 2]}", "[0, 2], layers: 3}"), "no such key: 'layers'", id="unknown key of a source"),
        pytest.param(changed("weight: 0.5", "weight: x"), "slice 1, weight", id="a word for a weight"),
        pytest.param(changed("linear", "ties"), "needs a base", id="no base"),
        pytest.param(changed("linear", "ties\nbase_model: base"), "slice 1: `ties` needs the base", id="base not in"),
        pytest.param(changed("linear", "slerp"), "slice 2: `slerp` merges exactly 2 models", id="too few"),
        pytest.param("merge_method: linear\nslices:\n" + "- sources: [{model: a, layer_range: [0, 1]}]\n" * 600,
                     "more than 512 slices", id="too many slices"),
        pytest.param(changed("to: helpful", "to: helpfull", LOCKS), "Did you mean `helpful`?", id="lock to nobody"),
        pytest.param(changed("to: helpful", "to: 3", LOCKS), "`to` must be", id="lock to a number"),
        pytest.param(changed(", to: helpful", "", LOCKS), "`to` must be", id="lock to nothing"),
        pytest.param(changed('tensors: ["*.mlp.*"], ', "", LOCKS), "`tensors` must list", id="lock of nothing"),
        pytest.param(changed('["*.mlp.*"]', "[3]", LOCKS), "`tensors` must list", id="a number for a pattern"),
        pytest.param(changed('["*.1.*"]', "{a: 1}", LOCKS), "`except` must list", id="except is a mapping"),
        pytest.param(changed("except", "exept", LOCKS), "Did you mean `except`?", id="unknown key of a lock"),
        pytest.param(changed('[{tensors: ["*.mlp.*"], except: ["*.1.*"], to: helpful}]', "all", LOCKS),
                     "must be a list", id="locks is a word"),
        pytest.param("merge_method: linear\nmodels: [{model: helpful}]\nlocks: [{tensors: x, to: base}]",
                     "no base to hold", id="lock to a base that is not there"),
        pytest.param("merge_method: ties\nbase_model: base\nmodels: [{model: a/x}, {model: b/x}]\n"
                     "locks: [{tensors: y, to: x}]", "'x' names 2 models", id="lock to one of two"),
        pytest.param(SLICES + 'locks: [{tensors: ["*"], to: harmless}]\n', "locks, entry 1: 'harmless' has no part in",
                     id="lock to a model of another slice"),
        pytest.param(LOCKS.split("locks")[0] + "locks: [" + "{tensors: x, to: base}," * 1100 + "]",
                     "more than 1024 locks", id="too many locks"),
        pytest.param(LOCKS + "---\n" + LOCKS, "only the last merge may lack a name", id="two without a name"),
        pytest.param("name: a\n" + LOCKS + "---\n" + LOCKS, "a: no other document uses it", id="unused stage"),
        pytest.param("name: a\n" + LOCKS.replace("to: helpful", "to: nobody") + "---\nmerge_method: linear\n"
                     "models: [{model: a}]", "a, locks: the recipe has no model 'nobody'", id="a stage's problem"),
        pytest.param(f"name: {'x' * 100_000}\n" + LOCKS + "---\n" + LOCKS, "no other document", id="a huge name"),
        pytest.param("&x name: a\n" + LOCKS + "---\nname: *x\n", "alias", id="an alias of another document"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_meant(family, capsys, text, says):
    (family / "recipe.yml").write_text(text)
    assert says in refused(family, capsys)
