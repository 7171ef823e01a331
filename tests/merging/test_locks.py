"""Locks: what is held stays exactly as its model has it, in exports and in the live merge; the rest is merged."""

import pytest
import torch

from merging.engine import merged_tensors
from merging.live import LiveMerge
from merging.plan import check, make_plan
from merging.recipe import Lock, parse_recipe
from tests.pico import make_family

LOCKED = """
merge_method: {method}
base_model: base
models: [{{model: helpful}}, {{model: ./honest}}]
locks:
- {{tensors: ["*.mlp.*"], except: ["*.1.mlp.down_proj*"], to: base}}
- {{tensors: "*.layers.1.*", to: honest}}
"""


@pytest.fixture
def family(tmp_path):
    make_family(tmp_path, 2)
    return tmp_path


@pytest.mark.parametrize("method", ["ties", "linear", "resm", "slerp"])
def test_held_tensors_are_exact_and_the_others_as_without_locks(family, method):
    text = LOCKED.format(method=method)
    text = text.replace("{model: helpful}, ", "") if method == "slerp" else text
    recipe = parse_recipe(text, family)
    plan = make_plan(recipe)
    free = make_plan(parse_recipe(text.split("locks:")[0], family))
    merged, unlocked = dict(merged_tensors(plan)), dict(merged_tensors(free))
    experts = [expert for expert in plan.experts if expert is not plan.base]
    live = LiveMerge(plan.base, experts, [f"expert {i}" for i in range(len(experts))])
    state = live.state(plan)
    honest = plan.experts[-1]
    for name, tensor in merged.items():
        if ".mlp." in name and name != "model.layers.1.mlp.down_proj.weight":
            wanted = plan.base.read(name)
        elif ".layers.1." in name:
            wanted = honest.read(name)
        else:
            wanted = unlocked[name]
        assert torch.equal(tensor, wanted), name
        assert torch.equal(state[name], wanted) or not (".mlp." in name or ".layers.1." in name), name
    assert plan.digest != free.digest


def test_the_live_picture_of_a_held_matrix_shows_no_delta_or_the_experts(family):
    plan = make_plan(parse_recipe(LOCKED.format(method="ties"), family))
    live = LiveMerge(plan.base, plan.experts, ["helpful", "honest"])
    look = next(event.look for event in live.move(plan, None, lambda: False) if hasattr(event, "look"))
    base, honest = look.views["model.layers.0.mlp.up_proj.weight"], look.views["model.layers.1.self_attn.q_proj.weight"]
    assert max(base.spectra[-1].values) == 0
    torch.testing.assert_close(torch.tensor(honest.spectra[-1].values), torch.tensor(honest.spectra[1].values))


def test_what_it_writes_it_reads_back(family):
    recipe = parse_recipe(LOCKED.format(method="ties"), family)
    assert recipe.locks[1] == Lock("honest", ("*.layers.1.*",))
    assert parse_recipe(recipe.to_yaml(), family) == recipe


def test_a_lock_on_nothing_is_told(family):
    text = LOCKED.format(method="ties") + '- {tensors: ["layers.9"], to: base}\n'
    checked = check(parse_recipe(text, family))
    assert checked.plan is not None
    assert [note for note in checked.notices if "locks, entry 3" in note and "'layers.9' matches no tensor" in note]
