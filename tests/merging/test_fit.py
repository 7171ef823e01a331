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


def test_the_scale_by_hand():
    """lambda = (4/4 + 1/1) / (5/4 + 5/1); then |.64 - 2|^2 + .32^2 of 4 and .64^2 + .68^2 of 1 are lost."""
    found = fit_scale(
        recipe(more="parameters: {lambda: [0.5, 1.5]}"),
        measured(lambda s, w: summed(1.0 if isinstance(s, tuple) else s, w)),
    )
    assert found.found == (0.32,)
    assert dict(found.recipe.parameters) == {"lambda": 0.32}, "one number in the place of a list over depth"
    assert found.before == pytest.approx((0.75, -3.0))
    assert found.after == pytest.approx((0.512, 0.128))
    shares = "output kept was -112.5 (least -300.0), is 32.0 (least 12.8) of 100, all matrices together."
    assert told(found) == f"λ 0.32, in closed form: {shares}"


def test_a_scale_keeps_to_its_slider():
    assert fit_scale(recipe(), measured(lambda s, w: s * 0.1 * ONE)).found == (2.0,)
    assert fit_scale(recipe(), measured(lambda s, w: -s * ONE)).found == (0.0,)


def test_weights_by_hand_in_one_step():
    found = fit_weights(recipe(), measured(summed))
    assert (found.found, found.steps) == ((0.2, 0.8), 1)
    assert found.after == pytest.approx((0.2, 0.8))
    assert [dict(e.parameters) for e in found.recipe.experts] == [{"weight": 0.2}, {"weight": 0.8}]
    again = fit_weights(found.recipe, measured(summed))
    assert (again.recipe, again.steps) == (found.recipe, 0), "nothing keeps more"


def test_a_method_that_is_not_linear_in_its_weights_is_followed_in_steps():
    """w_1^2 = .2 and w_2 = .8."""
    found = fit_weights(recipe(), measured(lambda s, w: w[0] ** 2 * ONE + w[1] * TWO))
    assert found.found == pytest.approx((0.2**0.5, 0.8), abs=0.01)
    assert found.steps > 1


def test_no_weight_goes_below_0():
    """As `output_fit` without negative weights: (2 w - 1)^2 + (w - 1)^2 is least at .6."""
    one, two = torch.tensor([[1.0, 0.2]]), torch.tensor([[2.0, 1.0]])
    grams = (torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0])))
    found = fit_weights(recipe(), measured(lambda s, w: w[0] * one + w[1] * two, (one, two), grams))
    assert found.found == pytest.approx((0.0, 0.6), abs=1e-3)


def test_what_is_left_out_stays_out_and_has_no_say():
    found = fit_weights(recipe(weights=(0.0, 0.5)), measured(summed))
    assert found.found == (0.0, 1.0)
    assert math.isnan(found.after[0])
    assert found.after[1] == 1.0
    # -1 x ONE stays: it loses 4 of the second expert's 1, whatever the second's weight
    taken = fit_weights(recipe(weights=(-1.0, 0.5)), measured(summed))
    assert (taken.found, taken.after[1]) == ((-1.0, 1.0), -3.0)


@pytest.mark.parametrize(("method", "fit"), [("slerp", fit_scale), ("model_stock", fit_weights)])
def test_where_there_is_nothing_to_fit_it_says_so(method, fit):
    with pytest.raises(UserError, match=f"`{method}`") as raised:
        fit(recipe(method), lambda _: Outputs(torch.zeros(2, 1, 1), torch.zeros(2, 1), torch.zeros(2)))
    assert raised.value.code == "E_FIT"


def test_a_method_that_shares_out_its_weights_is_followed_along_their_ratio():
    """(w_1 ONE + w_2 TWO) / (w_1 + w_2) keeps most at w_1 = .2 of both, as without the quotient."""
    found = fit_weights(recipe(), measured(lambda s, w: summed(1.0, w) / sum(w)))
    assert found.found[0] / sum(found.found) == pytest.approx(0.2, abs=0.01)
    assert found.after == pytest.approx((0.2, 0.8), abs=0.02)
