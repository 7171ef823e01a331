"""What every registered method must hold: both ends of every knob, odd inputs, order, weight 0, dtypes."""

import pytest
import torch

from merging.calibration import Inputs
from merging.methods import METHODS
from merging.random_bits import uniform_bits
from merging.spectral import Factors, Fold

SHAPES = [(6, 4), (4, 6), (1, 5), (7,), (1,), (3, 2, 2), ()]


def inputs(kind, shape, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randn(n, *shape, generator=generator)
    if kind == "zero":
        return torch.zeros(n, *shape)
    if kind == "duplicate":
        return stack[:1].expand(n, *shape).clone()
    if kind == "rank one" and len(shape) == 2:
        return torch.einsum("tm,tn->tmn", stack[..., 0], stack[:, 0, :])
    return stack


def measured(stack):
    """Made-up inputs of a matrix that is embedding and head, each expert's its own; others have gradients only."""

    def gradient(t):
        return stack[t].square() + 0.1

    gradients = {"fisher": gradient, "saliency": lambda t: (gradient(t) + stack[t].abs(), gradient(t))}
    if stack.dim() != 3 or stack.shape[1] < 2:
        return Inputs(**gradients, squares=stack.abs() if stack.dim() == 2 else None)
    n, width = len(stack), stack.shape[2]
    x = torch.randn(50, width, generator=torch.Generator().manual_seed(11)) * torch.arange(1, width + 1)
    grams = [x.T @ x / 50 + delta.T @ delta for delta in stack]
    products = torch.stack([torch.einsum("sij,uij->su", (stack @ gram).double(), stack.double()) for gram in grams])
    other = torch.eye(n, dtype=torch.float64).expand(n, n, n)  # matrices that only the model's scope has
    counts = torch.stack([delta.abs().sum(1) for delta in stack])
    return Inputs(grams.__getitem__, counts, lambda scope: products + (scope == "model") * other, **gradients)


def run(method, stack, weights=None, owners=None, **changes):
    """One method on (T, *shape) with its defaults and some knobs changed; None where it does not take the shape."""
    if method.spectral and (stack.dim() != 3 or min(stack.shape[1:]) < 2):
        return None
    n = len(stack)
    settings = {}
    for knob in method.knobs:
        value = changes.get(knob.key, knob.default)
        settings["lambda_" if knob.key == "lambda" else knob.key] = (
            torch.tensor(value if isinstance(value, list) else [float(value)] * n, dtype=torch.float64)
            if knob.per_expert
            else value
        )
    if method.takes_base:
        settings["base"] = torch.randn(stack.shape[1:], generator=torch.Generator().manual_seed(9))
    if method.calibrated:
        settings["inputs"] = measured(stack)
    if method.random:
        owners = owners or [str(t) for t in range(n)]
        shape = tuple(stack.shape[1:])
        settings["bits"] = lambda t, once=False: uniform_bits(0, owners[t], "tensor", () if once else shape)
    weights = torch.ones(n) if weights is None else torch.tensor(weights)
    found = method(Factors(stack) if method.spectral else stack, weights, **settings)
    return found.dense() if isinstance(found, Fold) else found


def count(method):
    """Three models, or as near to three as the method takes."""
    return min(max(3, method.experts[0]), method.experts[1])


def ends(knob):
    if knob.kind == "number":
        return [knob.low, knob.high]
    return {"switch": [False, True], "choice": list(knob.choices), "globs": [()]}[knob.kind]


each_method = pytest.mark.parametrize("method", list(METHODS.values()), ids=list(METHODS))


@each_method
@pytest.mark.parametrize("kind", ["random", "zero", "rank one", "duplicate"])
def test_finite_at_both_ends_of_every_knob(method, kind):
    n = count(method)
    for shape in SHAPES:
        stack = inputs(kind, shape, n)
        before = stack.clone()
        for knob in method.knobs:
            for end in ends(knob):
                found = run(method, stack, **{knob.key: end})
                if found is not None:
                    assert found.shape == shape
                    assert found.dtype == torch.float32
                    assert torch.isfinite(found).all(), (knob.key, end, shape)
        assert torch.equal(stack, before), "inputs must stay untouched"


@each_method
def test_every_knob_changes_something(method):
    n = count(method)
    generator = torch.Generator().manual_seed(3)
    stack = torch.randn(n, 24, 16, generator=generator)
    stack[:, 0, 0] = 30.0  # an outlier for the outlier rules
    stack *= torch.rand(stack.shape, generator=generator) ** 4  # many small entries for the sparsity rules
    together = {  # settings under which a knob has something to do
        "energy": {"rank_mode": "energy"},
        "rescale": {"density": 0.5},
        "convention": {"density": 0.5},
        "polar_tolerance": {"rank_mode": "uniform"},
        "outlier_stat": {"outlier_threshold": 1.0},
        "outlier_scope": {"outlier_threshold": 1.0},
        "gamma": {"density": 0.5},
        "epsilon": {"density": 0.5},
        "a": {"embed": "tied"},
        "ridge": {"embed": "tied"},
        "nuslerp_row_wise": {"nuslerp_flatten": False},
    }
    changes = {  # inputs on which a knob has something to do
        # energies below mergekit's floor
        ("sce", "convention"): lambda x: x * torch.tensor([1e-4, 2e-4, 3e-4]).view(3, 1, 1),
        # the scale of a norm
        ("regmean", "norms"): lambda x: x[:, 0],
        ("regmean_pp", "norms"): lambda x: x[:, 0],
        ("regmean_gains", "norms"): lambda x: x[:, 0],
        # against each other
        ("model_stock", "clamp"): lambda x: x * torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1),
    }
    if method.id == "safe_gate":  # nothing is gated without a safe expert, nor where all are
        one = {"safe": [1.0, 0.0, 0.0]}
        together = {"tau": one, "share": one | {"tau": 1.0}, "projector": one | {"tau": 0.5}, "safe": {"tau": 1.0}}
    for knob in method.knobs:
        if knob.kind == "globs":
            continue  # patterns are applied by the engine: tests/merging/test_engine.py
        if (method.id, knob.key) == ("output_fit", "positive"):
            continue  # needs a weight below 0: tests/merging/test_calibration.py
        others = {key: value for key, value in together.get(knob.key, {}).items() if method.knob(key)}
        weights = [0.5, 1.5, 1.0][:n]
        given = changes.get((method.id, knob.key), torch.clone)(stack)
        alike = knob.key == "safe" or (method.id, knob.key) == ("led", "r")  # one value for all changes nothing
        values = [0.0, [1.0, 0.0, 0.0]] if alike else ends(knob)
        found = [run(method, given, weights, **(others | {knob.key: value})) for value in values]
        assert any(not torch.allclose(found[0], other, atol=1e-6) for other in found[1:]), knob.key


@each_method
def test_the_order_of_experts_does_not_matter(method):
    if method.base_first or method.experts[1] == 1:
        pytest.skip(f"{method.id} has a first and a second model, or only one")
    n = count(method)
    stack = inputs("random", (6, 4), n)
    density = {"density": 0.5} if method.knob("density") else {}
    weights, owners = [0.5, 1.0, 1.5][:n], ["a", "b", "c"][:n]
    forward = run(method, stack, weights, owners, **density)
    backward = run(method, stack.flip(0), weights[::-1], owners[::-1], **density)
    torch.testing.assert_close(forward, backward, atol=1e-5, rtol=1e-5)


@each_method
def test_lambda_scales_the_result(method):
    if not method.knob("lambda") or method.space == "weights":
        pytest.skip(f"{method.id} has no scale")
    stack = inputs("random", (6, 4), 3)
    once, twice = (run(method, stack, **{"lambda": scale}) for scale in (0.5, 1.0))
    torch.testing.assert_close(2 * once, twice, atol=1e-5, rtol=1e-5)


@each_method
def test_experts_equal_to_the_base_give_the_base(method):
    for shape in SHAPES:
        if method.space != "weights":
            found = run(method, inputs("zero", shape, count(method)))
            assert found is None or not found.any(), "no delta adds nothing"
        if method.space in ("weights", "either"):
            models = inputs("duplicate", shape, count(method))
            torch.testing.assert_close(run(method, models), models[0], atol=1e-5, rtol=1e-5)


ALONE = (
    "linear rewarded_soup task_arithmetic ties dare_linear dare_ties della della_linear breadcrumbs breadcrumbs_ties "
    "tsv_m sce ram ramplus_tl karcher multislerp passthrough"
)


@pytest.mark.parametrize("name", ALONE.split())
def test_one_expert_of_weight_one_is_that_expert(name):
    for shape in SHAPES:
        stack = inputs("random", shape, 1)
        found = run(METHODS[name], stack)
        if found is not None:
            torch.testing.assert_close(found, stack[0], atol=1e-5, rtol=1e-5)


@each_method
def test_a_method_reads_weights_or_says_that_it_does_not(method):
    n = count(method)
    stack = inputs("random", (6, 4), n)
    plain, weighted = run(method, stack), run(method, stack, [0.5, 1.5, 1.0][:n])
    assert torch.equal(plain, weighted) is not method.uses_weight


@each_method
def test_a_knob_that_needs_a_choice_does_nothing_without_it(method):
    stack = torch.randn(count(method), 24, 16, generator=torch.Generator().manual_seed(3))
    for knob in (knob for knob in method.knobs if knob.needs):
        key, *values = knob.needs
        choice = method.knob(key)
        assert set(values) < set(choice.choices), knob.key
        for other in set(choice.choices) - set(values):
            found = [run(method, stack, [0.5, 1.5, 1.0], **{key: other, knob.key: value}) for value in ends(knob)]
            assert all(torch.equal(found[0], one) for one in found[1:]), (knob.key, other)


@each_method
def test_it_describes_itself(method):
    assert method.summary.endswith(".")
    assert method.paper.url.startswith("https://arxiv.org/abs/")
    for knob in method.knobs:
        assert knob.label
        assert knob.help.endswith(".")
        assert len(knob.help) <= 44, knob.help
        assert knob.step > 0


def test_random_bits_depend_on_their_key_alone():
    first = uniform_bits(1, "expert", "a.weight", (300, 1000))
    assert torch.equal(first, uniform_bits(1, "expert", "a.weight", (300, 1000)))
    for other in (("expert", "b.weight"), ("other", "a.weight")):
        assert not torch.equal(first, uniform_bits(1, *other, (300, 1000)))
    assert not torch.equal(first, uniform_bits(2, "expert", "a.weight", (300, 1000)))
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean().item() - 0.5) < 0.003
    blocks = first.flatten()[: 1 << 17], first.flatten()[1 << 18 :][: 1 << 15]
    assert not torch.equal(blocks[0][: 1 << 15], blocks[1]), "every block has bits of its own"
