"""Preset recipes: each is sound, and means what its paper says on Town's deltas."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eval.searching.scoring import presets
from merging.methods import METHODS
from merging.pieces import merged_tensor
from merging.plan import check, make_plan
from merging.recipe import Recipe

NAME = "model.layers.3.mlp.down_proj.weight"
BY_NAME = {recipe.name: recipe for recipe in presets()}


def test_every_preset_is_sound_says_what_it_is_and_has_a_name_of_its_own():
    files = list((Path(__file__).resolve().parents[2] / "assets" / "recipes").glob("*.yml"))
    assert len(BY_NAME) == len(files)
    for recipe in BY_NAME.values():
        missing = ["E_CALIBRATION"] if METHODS[recipe.method].calibrated else []  # it is measured once it is chosen
        assert [problem.code for problem in check(recipe).problems] == missing, recipe.name
        assert recipe.note.endswith("."), recipe.name


def deltas(recipe: Recipe) -> tuple[list[Tensor], Tensor]:
    """Of each expert, and of the merge."""
    plan = make_plan(replace(recipe, out_dtype="float32"))
    base = plan.base.read(NAME).float()
    merged = merged_tensor(plan, plan.tensor(NAME), None)
    return [model.read(NAME).float() - base for model in plan.experts], merged - base


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Safety vector", (0.6, 0.6, 0.5)),  # tasks + g (aligned - unaligned), g = 1/2
        ("MergeAlign", (0.25, 0.25, 0.5)),  # (1 - s) mean of the tasks + s safety, s = 1/2
        ("Honesty by interpolation", (0.0, 0.5, 0.0)),  # base + 1/2 (expert - base)
    ],
)
def test_presets_of_task_arithmetic_are_these_sums(name: str, weights: tuple[float, ...]):
    experts, merged = deltas(BY_NAME[name])
    wanted = torch.tensordot(torch.tensor(weights), torch.stack(experts), 1)
    assert float((merged - wanted).norm() / wanted.norm()) < 1e-5
