"""Fits of scale and weights: cases by hand, on deltas of one matrix."""

import math
from pathlib import Path

import pytest
import torch

from merging.calibration import Inputs
from merging.errors import UserError
from merging.fit import Outputs, fit_scale, fit_weights, outputs_of, told
from merging.recipe import parse_recipe

ONE, TWO = torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
WHITE = torch.eye(2)


def recipe(method="task_arithmetic", weights=(1.0, 1.0), more=""):
    models = "".join(f"- {{model: {n}, parameters: {{weight: {w}}}}}\n" for n, w in zip("ab", weights, strict=True))
    return parse_recipe(f"merge_method: {method}\nbase_model: base\nmodels:\n{models}{more}", Path())


def measured(merge, deltas=(ONE, TWO), grams=(WHITE, WHITE)):
    """`merge(scale, weights)` is the merged delta."""

    def measure(recipes):
        pieces = []
        for asked in recipes:
            weights = [dict(e.parameters)["weight"] for e in asked.experts]
            pieces.append(merge(dict(asked.parameters).get("lambda", 1.0), weights))
        return outputs_of(torch.stack(pieces), torch.stack(list(deltas)), Inputs(grams.__getitem__))

    return measure


def summed(scale, weights):
    return scale * (weights[0] * ONE + weights[1] * TWO)


def test_outputs_by_hand():
    pair = outputs_of(torch.stack([ONE, ONE + TWO]), torch.stack([ONE, TWO]), Inputs((WHITE, 3 * TWO).__getitem__))
    assert pair.squares.tolist() == [[[4, 4], [4, 5]], [[0, 0], [0, 3]]]
    assert pair.own.tolist() == [[4, 4], [0, 3]]
    assert pair.whole.tolist() == [4, 3]
    # the sum loses |TWO|^2 of the first's 4, and nothing of the second, whose text does not touch the first input
    assert pair.kept(torch.tensor([0.0, 1.0]).double()).tolist() == [0.75, 1.0]
    assert (pair + pair).own.tolist() == [[8, 8], [0, 6]]


def test_a_transposed_matrix_puts_out_the_same():
    random = torch.Generator().manual_seed(0)
    deltas, x = torch.randn(2, 3, 5, generator=random), torch.randn(2, 9, 5, generator=random)
    grams = (x.mT @ x).__getitem__
    plain = outputs_of(deltas, deltas, Inputs(grams))
    turned = outputs_of(deltas.mT, deltas.mT, Inputs(grams, transposed=True))
    torch.testing.assert_close(turned.squares, plain.squares)


def test_alignment_by_hand():
    """(4 + 1) / sqrt(10 x 5); ONE alone meets 4 of it at sqrt(8 x 5)."""
    outputs = outputs_of(torch.stack([ONE, TWO]), torch.stack([ONE, TWO]), Inputs((WHITE, WHITE).__getitem__))
    assert outputs.alignment(torch.tensor([1.0, 1.0]).double()) == pytest.approx(0.5**0.5)
    assert outputs.alignment(torch.tensor([3.0, 0.0]).double()) == pytest.approx(0.4**0.5), "length does not count"
    assert outputs.alignment(torch.tensor([0.0, 0.0]).double()) == 0


@pytest.mark.parametrize("fit", [fit_scale, fit_weights])
def test_experts_that_put_out_what_the_base_does_fit_nothing(fit):
    nothing = torch.zeros(2, 2)
    with pytest.raises(UserError, match=r"put out nothing of their own"):
        fit(recipe(), measured(lambda scale, weights: nothing, (nothing, nothing)))


def test_the_scale_by_hand():
    """lambda^2 (5 + 5) = 4 + 1; then |.707 x 2 - 2|^2 + .707^2 of 4 and (.707 x 2)^2 + .293^2 of 1 are lost."""
    found = fit_scale(
        recipe(more="parameters: {lambda: [0.5, 1.5]}"),
        measured(lambda s, w: summed(1.0 if isinstance(s, tuple) else s, w)),
    )
    assert found.found == (0.707,)
    assert dict(found.recipe.parameters) == {"lambda": 0.707}, "one number in the place of a list over depth"
    assert found.before == pytest.approx((0.75, -3.0))
    assert found.after == pytest.approx((0.7892, -1.0852), abs=1e-4)
    shares = "output kept was −112.5 (least −300.0), is −14.8 (least −108.5) of 100, all matrices together."
    assert told(found) == f"λ 0.707, in closed form: {shares}"


def test_a_scale_keeps_to_its_slider():
    assert fit_scale(recipe(), measured(lambda s, w: s * 0.1 * ONE)).found == (2.0,)
    assert fit_scale(recipe(), measured(lambda s, w: -s * ONE)).found == (0.0,)
    assert fit_scale(recipe(), measured(lambda s, w: 0 * ONE)).found == (0.0,)


HALF = (WHITE, TWO)  # the second expert's text does not touch the first input


def test_weights_by_hand_in_one_step():
    """|w_1 ONE + w_2 TWO|^2 is 4 w_1^2 + 2 w_2^2 over both texts, against 4 w_1 + w_2: the best ratio is 1 to .5."""
    found = fit_weights(recipe(), measured(summed, grams=HALF))
    assert (found.found, found.steps) == ((1.333, 0.667), 1), "their sum stays"
    assert found.after == pytest.approx((7 / 9, 8 / 9), abs=1e-3)
    assert [dict(e.parameters) for e in found.recipe.experts] == [{"weight": 1.333}, {"weight": 0.667}]
    again = fit_weights(found.recipe, measured(summed, grams=HALF))
    assert (again.recipe, again.steps) == (found.recipe, 0), "nothing is nearer"


def test_a_method_that_is_not_linear_in_its_weights_is_followed_in_steps():
    """w_1^2 = 2 w_2 and w_1 + w_2 = 2."""
    found = fit_weights(recipe(weights=(0.5, 1.5)), measured(lambda s, w: w[0] ** 2 * ONE + w[1] * TWO, grams=HALF))
    assert found.found == pytest.approx((5**0.5 - 1, 3 - 5**0.5), abs=0.02)
    assert found.steps > 1


def test_no_weight_goes_below_0():
    """As `output_fit` without negative weights: (2 w - 1)^2 + (w - 1)^2 is least at .6, and the sum stays 1."""
    one, two = torch.tensor([[1.0, 0.2]]), torch.tensor([[2.0, 1.0]])
    grams = (torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0])))
    found = fit_weights(recipe(weights=(0.5, 0.5)), measured(lambda s, w: w[0] * one + w[1] * two, (one, two), grams))
    assert found.found == pytest.approx((0.0, 1.0), abs=1e-3)


def test_what_is_left_out_stays_out_and_has_no_say():
    found = fit_scale(recipe(weights=(0.0, 1.0)), measured(summed))
    assert found.found == (1.0,), "TWO puts out as much as itself; with the first's text it would be longer"
    assert math.isnan(found.after[0])
    assert found.after[1] == 1.0
    # -1 x ONE stays: it loses 4 of the second expert's 1, whatever the second's weight
    taken = fit_weights(recipe(weights=(-1.0, 1.0)), measured(summed))
    assert (taken.found, taken.after[1]) == ((-1.0, 1.0), -3.0)


@pytest.mark.parametrize(("method", "fit"), [("slerp", fit_scale), ("model_stock", fit_weights)])
def test_where_there_is_nothing_to_fit_it_says_so(method, fit):
    with pytest.raises(UserError, match=f"`{method}`") as raised:
        fit(recipe(method), lambda _: Outputs(torch.zeros(2, 1, 1), torch.zeros(2, 1), torch.zeros(2)))
    assert raised.value.code == "E_FIT"


def test_a_method_that_shares_out_its_weights_is_followed_along_their_ratio():
    """(w_1 ONE + w_2 TWO) / (w_1 + w_2) is nearest at 1 to .5, as without the quotient."""
    found = fit_weights(recipe(), measured(lambda s, w: summed(1.0, w) / sum(w), grams=HALF))
    assert found.found[0] / sum(found.found) == pytest.approx(2 / 3, abs=0.01)
