"""Spaces: what goes in comes back, methods agree where they must, and recipes run in them."""

import math

import pytest
import torch
from torch import tensor

from merging.covariance import covariance_merge
from merging.live import LiveMerge
from merging.live_events import FocusReady, StateReady
from merging.methods import METHODS
from merging.plan import make_plan
from merging.random_bits import uniform_bits
from merging.recipe import parse_recipe
from merging.shaping import shared_knobs
from merging.spaces import SPACES, core, full, knots
from merging.spectral import Factors, Fold
from tests.keywords import keywords
from tests.pico import make_family

Q = "model.layers.0.self_attn.q_proj.weight"


def close(found, expected, atol=1e-10):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def random(n, rows, columns, seed=0):
    return torch.randn(n, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def adapters(ranks=(4, 4, 8), shape=(40, 30)):
    pairs = tuple((random(1, shape[0], r, 2 * i)[0], random(1, r, shape[1], 2 * i + 1)[0]) for i, r in enumerate(ranks))
    return Factors(torch.stack([b @ a for b, a in pairs]), low=pairs)


def dense(merged):
    return merged.dense() if isinstance(merged, Fold) else merged


def run(name, space, **settings):
    """A method in a space, back in the coordinates of the weights."""
    method, factors = METHODS[name], space.factors
    arguments = keywords(method, **settings)
    for knob in method.knobs:
        if knob.per_expert:
            arguments[knob.key] = torch.full((len(factors.deltas),), arguments[knob.key], dtype=torch.float64)
    if method.random:
        shape = tuple(factors.deltas.shape[1:])
        arguments["bits"] = lambda t: uniform_bits(0, str(t), "tensor", shape).double()
    weights = torch.ones(len(factors.deltas), dtype=factors.deltas.dtype)
    return dense(space.back(method(factors if method.spectral else factors.deltas, weights, **arguments)))


@pytest.mark.parametrize("name", SPACES)
class TestEverySpace:
    @pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
    def test_each_delta_comes_back(self, name, shape):
        factors = adapters(shape=shape)
        for given in (factors, Factors(factors.deltas), Factors(random(3, *shape))):
            space = SPACES[name](given)
            for t in range(3):
                close(dense(space.back(space.factors.deltas[t])), given.deltas[t])

    def test_sums_are_the_same_in_it(self, name):
        factors = adapters()
        close(run("task_arithmetic", SPACES[name](factors)), factors.deltas.sum(0))

    def test_odd_experts(self, name):
        zero = random(3, 6, 5)
        zero[1] = 0
        for deltas in (zero, zero * 0, zero[:1]):
            space = SPACES[name](Factors(deltas))
            close(run("task_arithmetic", space), deltas.sum(0))
            assert torch.isfinite(run("ties", space, density=0.5)).all()

    def test_the_order_of_experts_does_not_matter(self, name):
        factors = adapters()
        turned = factors.select([2, 0, 1])
        found = run("ties", SPACES[name](factors), density=0.5)
        close(run("ties", SPACES[name](Factors(turned.deltas, low=turned.low)), density=0.5), found)


class TestCore:
    def test_it_is_as_small_as_the_ranks_together(self):
        assert core(adapters()).factors.deltas.shape == (3, 16, 16)
        assert core(Factors(adapters().deltas)).factors.deltas.shape == (3, 16, 16)
        one = adapters((4,))
        twice = Factors(one.deltas.repeat(2, 1, 1), low=one.low * 2)
        assert core(twice).factors.deltas.shape == (2, 4, 4)

    @pytest.mark.parametrize("name", ["task_arithmetic", "tsv_m", "resm", "iso_c", "cart"])
    def test_methods_that_do_not_see_coordinates_give_the_full_result(self, name):
        factors = adapters()
        settings = {"outlier_mode": "none", "rank_mode": "uniform"} if name == "resm" else {}
        close(run(name, core(factors), **settings), run(name, full(factors), **settings), atol=1e-9)

    @pytest.mark.parametrize("name", ["ties", "dare_linear"])
    def test_methods_that_do_stay_in_the_experts_directions(self, name):
        factors = adapters()
        found = run(name, core(factors), density=0.5)
        assert (found - run(name, full(factors), density=0.5)).norm() > 0.01 * found.norm()
        space = core(factors)
        back = space.back(space.factors.deltas[0])
        assert isinstance(back, Fold)
        close(back.u @ (back.u.T @ found), found)  # no new output direction

    def test_one_adapter_is_itself(self):
        one = adapters((4,))
        for name in ("ties", "tsv_m", "task_arithmetic"):
            close(run(name, core(one)), one.deltas[0])

    def test_the_rank_of_an_adapter_is_not_cut_by_its_scale(self):
        big, small = adapters((2, 2)).low
        assert big is not None
        assert small is not None
        scaled = ((big[0] * 1e4, big[1] * 1e4), (small[0] * 1e-2, small[1] * 1e-2))
        factors = Factors(torch.stack([b @ a for b, a in scaled]), low=scaled)
        space = core(factors)
        close(dense(space.back(space.factors.deltas[1])) * 1e4, factors.deltas[1] * 1e4, atol=1e-3)

    def test_float32_adapters_come_back_to_rounding(self):
        exact = adapters()
        low = tuple((pair[0].float(), pair[1].float()) for pair in exact.low if pair)
        factors = Factors(torch.stack([b @ a for b, a in low]), low=low)
        found = run("task_arithmetic", core(factors)).double()
        assert (found - exact.deltas.sum(0)).norm() < 1e-6 * found.norm()


def test_ties_in_the_knots_space_is_the_method_of_that_name():
    factors = adapters()
    close(run("ties", knots(factors), density=0.3), run("knots", full(factors), density=0.3), atol=0.0)


def test_the_two_routes_to_the_knots_basis_agree():
    factors = adapters()
    close(run("ties", knots(factors), density=0.3), run("ties", knots(Factors(factors.deltas)), density=0.3))


class TestCovariance:
    first, second = torch.eye(2, dtype=torch.float64), tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)

    def solve(self, grams, weights=(1.0, 1.0), share=1.0):
        deltas = torch.stack([self.first, self.second])
        return covariance_merge(
            deltas, grams, tensor(weights), torch.zeros(2, 2).double(), lambda values: torch.full_like(values, share)
        )

    def test_equal_covariances_give_the_weighted_mean(self):
        close(self.solve(lambda t: torch.eye(2).double()), (self.first + self.second) / 2)
        close(self.solve(lambda t: torch.eye(2).double(), (1.0, 3.0)), (self.first + 3 * self.second) / 4)

    def test_each_input_comes_from_the_expert_that_uses_it(self):
        axes = [torch.diag(tensor([1.0, 0.0])).double(), torch.diag(tensor([0.0, 1.0])).double()]
        close(self.solve(lambda t: axes[t]), [[1.0, 1.0], [0.0, 0.0]])

    def test_a_share_of_the_optimum(self):
        close(self.solve(lambda t: torch.eye(2).double(), share=0.5), (self.first + self.second) / 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("spaces")
    make_family(path, 3, layers=2)
    return path


def plan_of(folder, method, parameters="{}"):
    models = "[{model: helpful}, {model: honest}, {model: harmless}]"
    text = f"merge_method: {method}\nbase_model: base\nmodels: {models}\nparameters: {parameters}"
    return make_plan(parse_recipe(text, folder))


LIVE = [
    ("task_arithmetic", "{space: core, shaper: svc}"),
    ("ties", "{space: knots, density: 0.5, shaper: rows}"),
    ("dare_ties", "{space: core, density: 0.5}"),
    ("resm", "{shaper: star, rank_mode: sparsity_budget, space: core}"),
    ("tsv_m", "{shaper: cap}"),
    ("iso_c", "{}"),
    ("iso_cts", "{space: core}"),
    ("swudi", "{}"),
    ("orthomerge", "{shaper: floor}"),
    ("safe_gate", "{}"),
]


@pytest.mark.parametrize(("method", "parameters"), LIVE)
def test_the_live_merge_is_the_merge(folder, method, parameters):
    from merging.engine import merged_tensors

    plan = plan_of(folder, method, parameters)
    live = LiveMerge(plan.base, plan.experts, ["helpful", "honest", "harmless"])
    events = list(live.move(plan, Q, lambda: False))
    views = [event.view for event in events if isinstance(event, FocusReady)]
    assert math.isfinite(views[0].spectra[-1].stable_rank)
    assert any(isinstance(event, StateReady) for event in events)
    state = live.state(plan)
    for name, value in merged_tensors(plan):
        torch.testing.assert_close(state[name].float(), value.float(), atol=2e-3, rtol=1e-2)
    assert list(live.move(plan_of(folder, method, "{lambda: 0.5}"), None, lambda: False))


def test_the_shared_settings_of_a_method():
    keys = [knob.key for knob in shared_knobs(METHODS["ties"])]
    assert keys[:3] == ["weight", "space", "shaper"]
    assert {"svc_alpha", "star_eta", "floor_beta", "cap_quantile", "rows_p", "rows_limit", "rows_only_up"} < set(keys)
    assert [knob.key for knob in shared_knobs(METHODS["linear"])] == ["weight"]
    assert "space" not in [knob.key for knob in shared_knobs(METHODS["orthomerge"])]


def test_a_method_that_needs_the_base_says_that_the_space_has_no_effect(folder):
    plan = plan_of(folder, "orthomerge", "{space: core}")
    assert any("`space` has no effect" in notice for notice in plan.notices)


def test_the_digest_names_space_and_shaper(folder):
    forms = ["{}", "{space: core}", "{space: knots}", "{shaper: svc}", "{shaper: svc, svc_alpha: 0.5}"]
    assert len({plan_of(folder, "ties", form).digest for form in forms}) == len(forms)
