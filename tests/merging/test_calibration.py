"""Methods that merge by measured inputs: cases by hand, and what a recipe must say."""

import pytest
import torch

from merging.calibration import Inputs
from merging.covariance import least_squares, row_least_squares
from merging.errors import UserError
from merging.methods import METHODS
from merging.methods.output_fit import fit_weights
from merging.plan import make_plan
from merging.recipe import parse_recipe
from tests.keywords import keywords

# Two experts: the unit matrix, and one that reads both inputs and writes one output.
PAIR = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
ONES = torch.ones(2, dtype=torch.float64)


def diag(*values):
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def regmean(deltas, grams, weights=ONES, counts=None, squares=None, gains=None, **settings):
    method = METHODS["regmean" if gains is None else "regmean_gains"]
    transposed = settings.pop("transposed", False)
    inputs = Inputs(grams and grams.__getitem__, counts, transposed=transposed, squares=squares, gains=gains)
    return method(deltas, weights, inputs=inputs, **keywords(method, **{"a": 1.0, "ridge": 0.0} | settings))


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def test_regmean_takes_each_column_from_the_expert_that_reads_it():
    close(regmean(PAIR, [diag(1, 0), diag(0, 1)]), [[1, 1], [0, 0]])


def test_learned_gains_multiply_each_experts_part_column_by_column():
    gains = torch.tensor([[2.0, 9.0], [9.0, 0.5]])
    close(regmean(PAIR, [diag(1, 0), diag(0, 1)], gains=gains), [[2, 0.5], [0, 0]])
    close(regmean(PAIR, None, gains=gains), [[5.5, 0.25], [0, 4.5]])  # the mean of D_1 diag(2, 9) and D_2 diag(9, .5)


@pytest.mark.parametrize("counts", [None, torch.tensor([[1.0, 3.0], [2.0, 1.0]], dtype=torch.float64)])
def test_parts_that_keep_their_strength_are_the_whole_and_each_gram_matrix_is_read_as_often(counts):
    grams = [torch.tensor(each, dtype=torch.float64) for each in ([[2.0, 1.0], [1.0, 2.0]], [[3.0, -1.0], [-1.0, 1.0]])]
    read = []

    def gram(t):
        read.append(t)
        return grams[t]

    keywords = {"lambda_": 1.0, "a": 0.9, "ridge": 0.1, "embed": "tied", "norms": "mean"}
    whole, parts = (
        METHODS["regmean_gains"](PAIR, ONES, inputs=Inputs(gram, counts, gains=gains), **keywords)
        for gains in (None, torch.ones(2, 2))
    )
    close(parts, whole)
    assert read[: len(read) // 2] == read[len(read) // 2 :]


def test_equal_inputs_give_the_mean_and_importance_weighs_it():
    gram = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    close(regmean(PAIR, [gram, gram]), [[1, 0.5], [0, 0.5]])
    close(regmean(PAIR, [gram, gram], weights=torch.tensor([3.0, 1.0]).double()), [[1, 0.25], [0, 0.75]])


def test_inputs_that_nobody_met_take_the_mean():
    close(regmean(PAIR, [diag(1, 0), diag(1, 0)]), [[1, 0.5], [0, 0.5]])
    close(regmean(PAIR, None), [[1, 0.5], [0, 0.5]])


def test_much_ridge_is_a_mean_and_a_of_0_forgets_links():
    grams = [torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double(), diag(1, 3)]
    # the mean diagonals are 1 and 2
    close(regmean(PAIR, grams, ridge=1e9), [[1, 2 / 3], [0, 1 / 3]], atol=1e-6)
    # without links column 2 is (1 x D_1 + 3 x D_2) / 4
    close(regmean(PAIR, grams, a=0.0), [[1, 0.75], [0, 0.25]])


def test_a_transposed_matrix_is_fitted_on_its_inputs_too():
    grams = [diag(1, 0), diag(0, 1)]
    close(regmean(PAIR.mT, grams, transposed=True), [[1, 0], [1, 0]])


def test_a_cholesky_factor_gives_what_the_eigenvectors_give():
    random = torch.Generator().manual_seed(0)
    deltas = torch.randn(3, 5, 8, generator=random, dtype=torch.float64)
    x = torch.randn(3, 40, 8, generator=random, dtype=torch.float64)
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    grams = x.mT @ x
    expected = torch.linalg.lstsq(
        torch.cat([w**0.5 * own for w, own in zip(weights, x, strict=True)]),
        torch.cat([w**0.5 * own @ d.T for w, own, d in zip(weights, x, deltas, strict=True)]),
    ).solution.T
    close(least_squares(deltas, grams.__getitem__, weights), expected)


def test_a_row_that_is_input_and_output_is_fitted_row_by_row():
    """Against one solve a row, in float64."""
    random = torch.Generator().manual_seed(1)
    deltas = torch.randn(2, 4, 3, generator=random, dtype=torch.float64)
    x = torch.randn(2, 30, 3, generator=random, dtype=torch.float64)
    grams, counts = x.mT @ x, torch.tensor([[0.0, 1, 2, 1], [3, 0, 1, 0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = row_least_squares(deltas, counts, grams.__getitem__, weights)
    for row in range(4):
        total, product = torch.zeros(3, 3).double(), torch.zeros(3).double()
        for t in range(2):
            c = counts[t, row] / counts[t].mean() * grams[t].diagonal().mean()
            own = weights[t] * (grams[t] + c * torch.eye(3).double())
            total, product = total + own, product + own @ deltas[t, row]
        close(found[row], torch.linalg.solve(total, product), atol=1e-8)


def test_rows_that_are_only_looked_up_are_weighed_by_how_often():
    counts = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    # row 1: (3 x (1, 0) + (1, 1)) / 4; row 2 was never looked up: the mean
    close(regmean(PAIR, None, counts=counts, embed="tied"), [[1, 0.25], [0, 0.5]])
    close(regmean(PAIR, None, counts=counts, embed="mean"), [[1, 0.5], [0, 0.5]])


def test_lot_weighs_the_scale_of_a_norm_by_what_each_entry_met():
    scales, squares = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    # entry 1: (3 x 1 + 1 x 3) / 4, with weights 1 and 3 (3 x 1 + 3 x 3) / 6; nobody met entry 2: the mean
    close(regmean(scales, None, squares=squares, norms="lot"), [1.5, 3.0])
    close(regmean(scales, None, torch.tensor([1.0, 3.0]), squares=squares, norms="lot"), [2.0, 3.5])
    close(regmean(scales, None, squares=squares, norms="mean"), [2.0, 3.0])


def products(deltas, inputs):
    """M[t, s, u] by their definition, from rows of inputs."""
    outputs = [[x @ d.T for d in deltas] for x in inputs]
    return torch.stack([torch.stack([torch.stack([(a * b).sum() for b in own]) for a in own]) for own in outputs])


@pytest.mark.parametrize(
    ("deltas", "inputs", "expected"),
    [
        ([diag(2, 0), diag(0, 1)], [diag(1, 1), diag(1, 1)], [0.2, 0.8]),  # the larger disturbs the other more
        ([diag(2, 0), diag(0, 1)], [diag(1, 0), diag(0, 1)], [1.0, 1.0]),
        (list(PAIR), [diag(1, 1), diag(1, 1)], [0.5, 0.5]),
        (list(PAIR), [diag(1, 0), diag(0, 1)], [0.0, 1.0]),
    ],
)
def test_output_fit_by_hand(deltas, inputs, expected):
    close(fit_weights(products(deltas, inputs), ONES, ridge=0.0, positive=False), expected)


def test_output_fit_without_negative_weights():
    """w_1 + 2 w_2 = 1 and w_1 / 5 + w_2 = 1 has w_1 = -5 / 3; without it (2 w - 1)^2 + (w - 1)^2 is least at 0.6."""
    table = products([torch.tensor([[1.0, 0.2]]), torch.tensor([[2.0, 1.0]])], [diag(1, 0).float(), diag(0, 1).float()])
    close(fit_weights(table.double(), ONES, 0.0, positive=False), [-5 / 3, 4 / 3], atol=1e-6)
    close(fit_weights(table.double(), ONES, 0.0, positive=True), [0.0, 0.6], atol=1e-6)


def by_gradients(method, deltas, weights=ONES, fisher=None, saliency=None, **settings):
    given = Inputs(fisher=fisher and fisher.__getitem__, saliency=saliency and saliency.__getitem__)
    return METHODS[method](torch.stack(deltas), weights, inputs=given, **{"lambda_": 1.0, **settings})


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_fisher_weighs_each_entry_by_its_information():
    """The authors' average of models [0, 0] and [4, 4] with F [1, 3] and [3, 1] is [3, 1]."""
    deltas, information = [row(0, 0), row(4, 4)], [row(1, 3), row(3, 1)]
    close(by_gradients("fisher", deltas, fisher=information), [3, 1], atol=1e-5)
    close(by_gradients("fisher", deltas, fisher=information, lambda_=0.5), [1.5, 0.5], atol=1e-5)
    close(by_gradients("fisher", deltas, row(3, 1), information), [4 * 3 / 6, 4 * 1 / 10], atol=1e-5)
    close(by_gradients("fisher", deltas, row(1, -1), information), [-3, -1], atol=1e-5)


def test_fisher_without_information_is_the_mean():
    close(by_gradients("fisher", [row(0, 2), row(4, 4)], row(1, 3), [row(0, 0), row(0, 0)]), [3, 3.5])
    close(by_gradients("fisher", [row(0, 2), row(4, 4)], row(1, 3)), [3, 3.5])


def test_led_keeps_what_one_expert_alone_elects():
    deltas = [row(1, 2, 3, 4), row(10, 20, 30, 40)]
    scores = [
        (row(9, 8, 7, 0), row(9, 8, 0, 7)),  # base: 1st, 2nd, 3rd; expert: 1st, 2nd, 4th; both: 1st and 2nd
        (row(0, 9, 8, 7), row(0, 9, 7, 8)),  # both: 2nd, 3rd, 4th; the 2nd is elected twice and left to the base
    ]
    close(by_gradients("led", deltas, saliency=scores, r=row(0.75, 0.75)), [1, 0, 30, 40])
    close(by_gradients("led", deltas, row(2, 0.5), saliency=scores, r=row(0.75, 0.75)), [2, 0, 15, 20])
    # one entry each: the 1st for the first expert, the 2nd for the second
    close(by_gradients("led", deltas, saliency=scores, r=row(0.25, 0.25), lambda_=0.9), [0.9, 18, 0, 0])
    close(by_gradients("led", deltas, saliency=scores, r=row(0.25, 0)), [1, 0, 0, 0])


def test_led_breaks_ties_by_place():
    same = (row(1, 1, 1, 1), row(1, 1, 1, 1))
    close(by_gradients("led", [row(1, 2, 3, 4)], row(1), saliency=[same], r=row(0.5)), [1, 2, 0, 0])


RECIPE = """
merge_method: {method}
base_model: base
models: [{{model: helpful}}, {{model: honest}}]
{more}
"""


def problem(family, method, more=""):
    with pytest.raises(UserError) as raised:
        make_plan(parse_recipe(RECIPE.format(method=method, more=more), family))
    return raised.value


def test_a_recipe_must_name_a_calibration_that_is_there(family):
    assert problem(family, "regmean").code == "E_CALIBRATION"
    assert "python -m eval calibrate" in str(problem(family, "regmean"))
    missing = problem(family, "regmean", "calibration: nowhere")
    assert (missing.code, missing.what) == ("E_CALIBRATION", "there is no calibration here")


def test_another_file_in_its_place_is_told_apart(family):
    (family / "cal").mkdir()
    (family / "cal" / "about.json").write_text('{"format": 9}')
    assert "not as calibrate writes it" in problem(family, "regmean", "calibration: cal").what


def test_a_method_that_reads_none_says_so(family):
    plan = make_plan(parse_recipe(RECIPE.format(method="ties", more="calibration: nowhere"), family))
    assert any("there is no calibration here; `ties` merges without it" in text for text in plan.notices)
    assert plan.calibration is None
