"""LEWIS: densities by hand, as a recipe writes them, and as the Map shows them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from merging.calibration import About, Calibration, Inputs
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from merging.lewis import _change, by_layer, densities, lewis
from merging.live import LiveMerge
from merging.live_events import LookReady
from merging.look import Conflict, Family, Gate, Look, Matrix
from merging.plan import make_plan
from merging.plots import gate_strip
from merging.recipe import parse_recipe
from merging.values import resolve
from ui.gates import gate_finding

Q, DOWN = "model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.mlp.down_proj.weight"
CHANGES = {Q.format(0): 1.0, Q.format(1): 3.0, DOWN.format(0): 2.0, DOWN.format(1): 2.0}
RECIPE = """
merge_method: {method}
base_model: base
models: [{{model: helpful, parameters: {{density: {density}}}}}, {{model: honest}}]
parameters: {{density: 0.5}}
"""


def test_shares_of_a_kind_are_spread_over_the_range():
    # q has 1/4 and 3/4, down twice 1/2: the least is .3, the most .8, the middle halfway
    found = densities(CHANGES, 0.3, 0.8)
    assert found == pytest.approx({Q.format(0): 0.3, Q.format(1): 0.8, DOWN.format(0): 0.55, DOWN.format(1): 0.55})
    alike = dict.fromkeys(CHANGES, 2.0)
    assert set(densities(alike, 0.3, 0.8).values()) == {0.55}
    assert set(densities(dict.fromkeys(CHANGES, 0.0), 0.3, 0.8).values()) == {0.55}, "an expert that is the base"


def test_a_recipe_says_them_layer_by_layer_and_1_elsewhere():
    setting = by_layer(densities(CHANGES, 0.3, 0.8))
    assert [resolve(setting, Q.format(i), float(i)) for i in (0, 1)] == [0.3, 0.8]
    assert resolve(setting, DOWN.format(1), 1.0) == 0.55
    assert resolve(setting, "model.embed_tokens.weight", 0.0) == 1.0


@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_counts_by_its_own_inputs(transposed):
    """Base: columns of length 5 and 1 on inputs of mean square 1 and 0; expert: 10 and 1 on 4 and 9."""
    base = torch.tensor([[3.0, 1.0], [4.0, 0.0]])
    expert = torch.tensor([[6.0, 0.0], [8.0, 1.0]])
    columns = torch.tensor([[[9.0, 9.0], [1.0, 0.0]]])  # means of |x|, then of x^2
    grams = [torch.tensor([[4.0, 7.0], [7.0, 9.0]])]
    inputs = Inputs(grams.__getitem__, transposed=transposed, base_columns=lambda: columns)
    pair = (base.T, expert.T) if transposed else (base, expert)
    assert _change(*pair, inputs) == pytest.approx((100 * 4 + 1 * 9) ** 0.5 - 5)


def test_what_is_missing_is_said(family):
    with pytest.raises(UserError, match="no density"):
        lewis(make_plan(parse_recipe(RECIPE.format(method="task_arithmetic", density=1.0), family)))
    with pytest.raises(UserError, match="own matrices read"):
        lewis(make_plan(parse_recipe(RECIPE.format(method="ties", density=1.0), family)))
    about = About(base="b", experts=("e",), stream="own", tokens=(9,), matrices={}, embedding="", base_columns=True)
    plan = replace(
        make_plan(parse_recipe(RECIPE.format(method="ties", density=1.0), family)),
        calibration=Calibration(family, about),
    )
    with pytest.raises(UserError, match="of none of these matrices"):
        lewis(plan)


def test_the_map_has_a_strip_where_densities_differ(family):
    names = ("helpful", "honest")
    live = LiveMerge(open_checkpoint("base", family), [open_checkpoint(n, family) for n in names], names)

    def gate(density):
        plan = make_plan(parse_recipe(RECIPE.format(method="ties", density=density), family))
        events = live.move(plan, None, lambda: False)
        return next(event.look.gate for event in events if isinstance(event, LookReady))

    assert gate("0.3") is None
    found = gate("[{filter: q_proj, value: [0.3, 0.8]}, {value: 1.0}]")
    assert found is not None
    assert found.threshold is None
    q, down = (live.family.kinds.index(kind) for kind in ("q", "down"))
    np.testing.assert_allclose(found.values[0, q], [0.3, 0.8])
    np.testing.assert_allclose(found.values[0, down], [1.0, 1.0])
    np.testing.assert_allclose(found.values[1], 0.5)


def test_the_strip_says_what_is_kept():
    kinds = ("q",)
    made = Family(("helpful", "harmless"), tuple(Matrix(f"l.{i}.q", i, "q", (4, 8)) for i in range(2)), kinds, 2)
    values = np.array([[[0.3, 0.8]], [[0.5, 0.4]]], dtype=np.float32)
    nothing = np.full((1, 1, 2), np.nan, dtype=np.float32)
    look = Look("digest", made, {"sign": Conflict("sign", made.pairs, nothing)}, {}, 0.1, gate=Gate(values, None))
    helpful, harmless = gate_strip(look).figure["data"]
    assert helpful["y"] == [0.3, 0.8]
    assert not any(symbol.endswith("open") for symbol in harmless["marker"]["symbol"])
    assert gate_strip(look).figure["layout"]["shapes"] == []
    assert "helpful</b> layer 0 (0.30) to layer 1 (0.80)" in gate_finding(look)
    assert "harmless</b> layer 1 (0.40) to layer 0 (0.50)" in gate_finding(look)
