"""The profile of a recipe, against measures taken directly."""

import pytest
import torch

from merging.checkpoint import open_checkpoint
from merging.plan import make_plan
from merging.profile import profile
from merging.recipe import Expert, Recipe
from tests.pico import make_family

NAMES = ("helpful", "honest")


def test_every_matrix_is_measured_once_and_as_by_hand(tmp_path):
    make_family(tmp_path, experts=2)
    plan = make_plan(Recipe("resm", "base", tuple(Expert(name) for name in NAMES), folder=tmp_path))
    rows = list(profile(plan, NAMES))
    assert [(row.done, row.total) for row in rows] == [(i, 14) for i in range(1, 15)]
    row = next(row for row in rows if row.matrix.name == "model.layers.1.mlp.up_proj.weight")
    base, first, second = (open_checkpoint(n, tmp_path).read(row.matrix.name).double() for n in ("base", *NAMES))
    a, b = first - base, second - base
    pair, expert = row.pairs[0], row.experts[0]
    assert pair.pair == NAMES
    assert pair.top_k == 16  # 32 directions, two experts
    assert pair.cosine == pytest.approx(((a * b).sum() / a.norm() / b.norm()).item(), abs=1e-5)
    moved = (a != 0) & (b != 0)
    assert pair.sign == pytest.approx(((a * b < 0) & moved).sum().item() / moved.sum().item())
    s = torch.linalg.svdvals(a)
    assert expert.stable_rank == pytest.approx((s.square().sum() / s[0] ** 2).item(), rel=1e-4)
    assert expert.tail.norm_ratio == pytest.approx((a.norm() / base.norm()).item(), rel=1e-4)
    assert 1 <= expert.half_energy <= expert.numerical_rank <= 32
