"""Leaving one thing out of a merge of pico models: exactly that is as in the base, or as if it had never been there."""

from pathlib import Path

import pytest
import torch

from eval.scoring.why import variants
from merging.engine import merged_tensors
from merging.plan import Plan, make_plan
from merging.recipe import parse_recipe
from tests.pico import make_family


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), 2)


def planned(family: dict[str, Path], method: str, experts: tuple[str, ...], more: str = "") -> Plan:
    models = "".join(f"- model: {family[name]}\n" for name in experts)
    return make_plan(
        parse_recipe(f"merge_method: {method}\nbase_model: {family['base']}\nmodels:\n{models}{more}", Path())
    )


def test_each_expert_and_each_place_is_left_out_once(family: dict[str, Path]):
    plan = planned(family, "task_arithmetic", ("helpful", "honest"), "locks: [{tensors: ['*norm*'], to: honest}]\n")
    found = dict(variants(plan, ("helpful", "honest")))
    assert list(found) == ["helpful", "honest", "layer 0", "layer 1", "embeddings, final norm and head"]
    assert (
        found["helpful"].digest
        == planned(family, "task_arithmetic", ("honest",), "locks: [{tensors: ['*norm*'], to: honest}]\n").digest
    )
    assert found["honest"].digest == planned(family, "task_arithmetic", ("helpful",)).digest
    whole, held = dict(merged_tensors(plan)), dict(merged_tensors(found["layer 1"]))
    for name, tensor in held.items():
        expected = plan.base.read(name).to(tensor.dtype) if ".layers.1." in name else whole[name]
        assert torch.equal(tensor, expected), name


def test_what_a_method_cannot_do_is_left_out(family: dict[str, Path]):
    plan = planned(family, "slerp", ("base", "helpful"), "parameters: {t: 0.5}\n")
    assert list(dict(variants(plan, ("base", "helpful")))) == ["layer 0", "layer 1", "embeddings, final norm and head"]
