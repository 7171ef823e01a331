"""The gate's strip: its numbers are the merge's own, its marks say which matrices were changed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from merging.checkpoint import open_checkpoint
from merging.live import LiveMerge
from merging.live_events import LookReady
from merging.look import Conflict, Family, Gate, Look, Matrix
from merging.plan import make_plan
from merging.plots import gate_strip
from merging.recipe import Expert, Recipe
from tests.pico import make_family

NAMES = ("helpful", "honest", "harmless")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    make_family(folder, tied=True, dtype=torch.float32)
    return folder


@pytest.mark.parametrize("whole", [1 << 40, 0])
@pytest.mark.parametrize("settings", [{}, {"projector": True}, {"space": "core"}])
def test_hollow_marks_are_the_matrices_that_the_merge_changed(family: Path, whole: int, settings: dict):
    live = LiveMerge(
        open_checkpoint("base", family), [open_checkpoint(n, family) for n in NAMES], NAMES, None, whole, 99.0
    )

    def plan_of(tau: float, weights: tuple[float, ...] = (1.0, 1.0, 1.0)):
        experts = tuple(
            Expert(name, (("weight", weight), ("safe", float(name == "harmless"))))
            for name, weight in zip(NAMES, weights, strict=True)
        )
        parameters = (("tau", tau), ("share", 0.5), *settings.items())
        return make_plan(Recipe("safe_gate", "base", experts, parameters, folder=family))

    def gate_of(plan) -> Gate:
        events = live.move(plan, None, lambda: False)
        gate = next(event.look.gate for event in events if isinstance(event, LookReady))
        assert gate is not None
        return gate

    seen = gate_of(plan_of(0.5)).values
    assert np.isnan(seen[2]).all()  # the safe expert passes itself by
    tau = float(np.nanmedian(seen[:2]))
    gate, open_ = gate_of(plan_of(tau)), live.state(plan_of(-1.0))
    assert 0 < gate.changed.sum() < np.isfinite(seen).sum()
    shut = live.state(plan_of(tau))
    for matrix in live.family.matrices:
        cell = live.family.kinds.index(matrix.kind), matrix.layer
        assert gate.threshold[cell] == pytest.approx(tau)
        assert gate.changed[:, *cell].any() == (not torch.equal(shut[matrix.name], open_[matrix.name])), matrix.name
    assert np.isnan(gate_of(plan_of(0.5, (0.0, 1.0, 1.0))).values[0]).all()  # left out of the merge
    linear = make_plan(Recipe("linear", "base", tuple(Expert(name) for name in NAMES), folder=family))
    looks = [event.look for event in live.move(linear, None, lambda: False) if isinstance(event, LookReady)]
    assert looks[0].gate is None


def look() -> Look:
    kinds = ("q", "down")
    matrices = tuple(Matrix(f"layers.{i}.{k}", i, k, (4, 8)) for i in range(2) for k in kinds)
    made = Family(("helpful", "harmless"), matrices, kinds, 2)
    nothing = np.full((2, 2, 2), np.nan, dtype=np.float32)
    seen = nothing.copy()
    seen[0] = [[0.2, 0.8], [0.35, np.nan]]
    gate = Gate(seen, np.full((2, 2), 0.35, dtype=np.float32))
    return Look("digest", made, {"sign": Conflict("sign", made.pairs, nothing[:1])}, {}, 0.1, gate=gate)


def test_a_mark_a_matrix_hollow_below_the_line():
    picture = gate_strip(look())
    (helpful,) = picture.figure["data"]  # harmless is the safe one: no marks
    assert helpful["customdata"] == [[0, "q"], [0, "down"], [1, "q"]]
    assert helpful["y"] == [0.2, 0.35, 0.8]
    assert helpful["marker"]["symbol"] == ["triangle-up-open", "triangle-up", "triangle-up"]
    assert helpful["x"][0] < 0 < helpful["x"][1] < 0.5 < helpful["x"][2]
    assert [(line["x0"], round(line["y0"], 2)) for line in picture.figure["layout"]["shapes"]] == [
        (-0.5, 0.35), (0.5, 0.35),
    ]  # fmt: skip
