"""Spectral methods by hand-worked matrices, by their invariants, and on adapters against the dense route."""

import math

import pytest
import torch
from torch import tensor

from merging.decompose import svd
from merging.methods import METHODS
from merging.methods.safe_gate import alignment
from merging.spaces import core
from merging.spectral import Factors, Fold
from tests.keywords import keywords

I2, SHEAR = torch.eye(2, dtype=torch.float64), tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
FACTORED = ["iso_c", "iso_cts", "cart", "knots", "swudi", "tsv_m", "resm"]
PLAIN = {"resm": {"outlier_mode": "none", "rank_mode": "uniform"}, "knots": {"density": 0.5}}


def run(name, inputs, weights=None, base=None, **settings):
    """A method on stacked matrices or on Factors, with defaults for what is not given; the result is dense."""
    method = METHODS[name]
    factors = inputs if isinstance(inputs, Factors) else Factors(torch.stack([x.double() for x in inputs]))
    n, dtype = len(factors.deltas), factors.deltas.dtype
    arguments = keywords(method, **settings)
    for knob in method.knobs:
        if knob.per_expert:
            value = arguments[knob.key]
            arguments[knob.key] = tensor(value if isinstance(value, list) else [value] * n)
    if method.takes_base:
        arguments["base"] = random(1, *factors.deltas.shape[1:])[0] if base is None else base
    ones = torch.ones(n, dtype=dtype) if weights is None else tensor(weights, dtype=dtype)
    found = method(factors if method.spectral else factors.deltas, ones, **arguments)
    return found.dense() if isinstance(found, Fold) else found


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def diag(*values):
    return torch.diag(tensor(values, dtype=torch.float64))


def random(n, rows, columns, seed=0):
    return torch.randn(n, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def adapters(ranks=(4, 4, 8), shape=(40, 30), dtype=torch.float64, seed=0):
    """Factors of adapters, and the same deltas in float64 without their factors."""
    shapes = [((shape[0], r), (r, shape[1])) for r in ranks]
    pairs = [tuple(random(1, *part, seed + i)[0].to(dtype) for part in pair) for i, pair in enumerate(shapes)]
    dense = torch.stack([b.double() @ a.double() for b, a in pairs])
    return Factors(torch.stack([b @ a for b, a in pairs]), low=tuple(pairs)), Factors(dense)


def turn(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tensor([[c, -s], [s, c]], dtype=torch.float64)


def test_iso_c_gives_every_direction_the_mean_strength():
    close(run("iso_c", [diag(3, 0), diag(0, 1)]), diag(2, 2))
    close(run("iso_c", [diag(3, 0), diag(0, 1)], [1.0, 3.0], **{"lambda": 0.5}), diag(1.5, 1.5))
    close(run("iso_c", [diag(3, 1, 0), diag(0, 0, 0)]), diag(2, 2, 0))  # the null direction stays null


def test_iso_cts_of_orthogonal_experts():
    # the sum is diag(4, 3, 2, 1), f = .5: p = round((4 - 2) / 2) = 1 each, common 4 and 3, own 2 and 1; mean 2.5
    close(run("iso_cts", [diag(4, 0, 2, 0), diag(0, 3, 0, 1)], common_space_fraction=0.5), diag(2.5, 2.5, 2.5, 2.5))
    # all common: Iso-C
    deltas = list(random(3, 6, 5))
    close(run("iso_cts", deltas, common_space_fraction=1.0), run("iso_c", deltas))


def test_cart_keeps_what_stands_out_from_the_mean():
    experts = [diag(3, 2, 0), diag(3, 0, 1), diag(3, -0.5, 0)]
    close(run("cart", experts, rank_share=0.3), diag(3, 1, 1))
    close(run("cart", experts, rank_share=0.0), diag(3, 0.5, 1 / 3))
    close(run("cart", experts, rank_share=0.3, own_scale=0.0), diag(3, 0.5, 1 / 3))
    assert METHODS["cart"].experts[0] == 3


def test_knots_merges_in_the_shared_basis():
    experts = [tensor([[2.0, 1.0], [1.0, -1.0]]), tensor([[-1.0, 1.0], [1.0, 2.0]])]
    # U = [(1, 1), (1, -1)] / sqrt 2; in that basis the experts are [[3, 0], [1, 2]] and [[0, 3], [-2, -1]] (/ sqrt 2):
    # agreeing entries [[3, 3], [-2, 2]], whether or not the zeros are trimmed. Code that lets the rounding of a zero
    # vote gives [[.5, 1.75], [2.5, -.25]] at density 1, or that with other signs.
    for density in (1.0, 0.5):
        close(run("knots", experts, density=density), [[0.5, 2.5], [2.5, 0.5]])
    close(run("ties", experts), [[2.0, 1.0], [1.0, 2.0]])


class TestSwudi:
    def test_worked_examples(self):
        close(run("swudi", [diag(2, 0), diag(0, 1)], ratio=1.0), diag(2, 1))
        close(run("swudi", [I2, SHEAR], ratio=1.0), [[4 / 3, 1 / 3], [-1 / 3, 2 / 3]])
        close(run("swudi", [I2, diag(3, 0)], ratio=1.0), diag(7 / 3, 1))
        close(run("swudi", [I2, diag(3, 0)], ratio=1.0, cov_raw=True), diag(2.8, 1))

    def test_it_is_where_the_gradient_is_zero(self):
        merged = run("swudi", [I2, SHEAR], ratio=1.0)
        gradient = sum((merged - d) @ d.T @ d / d.square().sum() for d in (I2, SHEAR))
        assert gradient.norm() < 1e-12
        loss = sum(float(((merged - d) @ d.T).square().sum() / d.square().sum()) for d in (I2, SHEAR))
        assert loss == pytest.approx(1 / 3)

    def test_directions_that_are_cut_keep_the_start(self):
        # l = 1 on both axes of diag(2, 0) and diag(0, 1): tau decides alone
        for init, start in (("mean", diag(1, 0.5)), ("sum", diag(2, 1)), ("zero", diag(0, 0))):
            close(run("swudi", [diag(2, 0), diag(0, 1)], ratio=0.0, init=init), start)
            close(run("swudi", [diag(2, 0), diag(0, 1)], tau=0.0, init=init), start)
        half = 1 - math.exp(-0.7)
        close(run("swudi", [diag(2, 0), diag(0, 1)], ratio=1.0, tau=0.7, init="zero"), diag(2 * half, half))

    def test_weights_are_importance(self):
        experts = [I2, SHEAR]
        close(run("swudi", experts, [1.0, 1e-9], ratio=1.0), I2, atol=1e-6)
        close(run("swudi", experts, [3.0, 3.0], ratio=1.0), run("swudi", experts, ratio=1.0))
        close(run("swudi", [SHEAR], [-1.0], ratio=1.0), -SHEAR)


class TestSafeGate:
    def test_rho_of_the_worked_examples(self):
        direction = diag(2, 0)
        assert alignment(diag(1, 0), direction) == pytest.approx(1.0)
        assert alignment(diag(0, 1), direction) == 0.0
        assert alignment(diag(0.3, 1), direction) == pytest.approx(0.2873, abs=1e-4)
        assert alignment(diag(0.3, 1), direction, I2[:, :1]) == pytest.approx(0.2873, abs=1e-4)
        assert alignment(diag(1, 1), diag(0, 0)) == 1.0

    def test_a_delta_outside_takes_a_share_of_the_safe_expert(self):
        experts = [diag(0.3, 1), diag(4, 0), diag(-2, 0)]  # the last is the base before alignment: D_al = diag(2, 0)
        roles = {"safe": [0.0, 1.0, 0.0], "unaligned": [0.0, 0.0, 1.0]}
        gated = 0.8 * diag(0.3, 1) + 0.2 * diag(4, 0) + diag(4, 0)
        close(run("safe_gate", experts, **roles), gated)
        close(run("safe_gate", experts, **roles, projector=True), gated)
        close(run("safe_gate", experts, **roles, tau=0.25), diag(4.3, 1))
        close(run("safe_gate", experts, **roles, tau=-1.0), diag(4.3, 1))
        close(run("safe_gate", experts, **roles, tau=1.01, share=1.0), diag(8, 0))

    def test_roles_left_open(self):
        experts = [diag(0.3, 1), diag(2, 0)]
        close(run("safe_gate", experts, tau=1.0), diag(2.3, 1))  # no safe expert: task arithmetic
        close(run("safe_gate", experts, safe=[0.0, 1.0]), 0.8 * diag(0.3, 1) + 1.2 * diag(2, 0))  # D_al = D_s
        close(run("safe_gate", [diag(0.3, 1), diag(0, 0)], safe=[0.0, 1.0]), diag(0.3, 1))  # a zero D_al: gate off

    def test_the_core_gives_what_the_full_matrices_give(self):
        factors = adapters()[0]
        space = core(factors)
        for projector in (False, True):
            settings = {"safe": [0.0, 0.0, 1.0], "tau": 0.5, "projector": projector}
            inner = space.back(run("safe_gate", space.factors, **settings))
            assert isinstance(inner, Fold)
            close(inner.dense(), run("safe_gate", factors, **settings), atol=1e-10)
            rho = [alignment(deltas[0], deltas[2]) for deltas in (factors.deltas, space.factors.deltas)]
            assert rho[0] == pytest.approx(rho[1], abs=1e-12)


class TestOrthoMerge:
    def test_rotations_of_20_and_40_degrees_meet_at_the_cayley_mean(self):
        merged = I2 + run("orthomerge", [turn(20) - I2, turn(40) - I2], base=I2, exact=True)
        close(merged, turn(30.2350), atol=1e-6)
        assert float(torch.det(merged)) == pytest.approx(1.0)
        assert float(torch.det((turn(20) + turn(40)) / 2)) == pytest.approx(0.9698, abs=1e-4)

    def test_opposite_rotations_cancel(self):
        close(run("orthomerge", [turn(20) - I2, turn(-20) - I2], base=I2, exact=True), diag(0, 0))

    @pytest.mark.parametrize("exact", [False, True])
    def test_equal_experts_give_that_expert(self, exact):
        delta = random(1, 7, 5)[0]
        close(run("orthomerge", [delta, delta], exact=exact), delta)

    @pytest.mark.parametrize(("size", "error"), [(0.001, 5e-4), (0.01, 5e-3)])
    def test_first_order_is_close_where_deltas_are_small(self, size, error):
        base, deltas = random(1, 24, 16, seed=5)[0], random(3, 24, 16, seed=6) * size
        exact = run("orthomerge", list(deltas), base=base, exact=True)
        near = run("orthomerge", list(deltas), base=base)
        assert (near - exact).norm() < error * exact.norm()
        assert (near - deltas.mean(0)).norm() > 0.1 * exact.norm()

    def test_without_conflicting_rows_it_is_the_mean(self):
        deltas = random(3, 7, 5).abs()  # all cosines with the mean are positive
        for exact in (False, True):
            close(run("orthomerge", list(deltas), conflict_rows=True, exact=exact), deltas.mean(0))

    def test_conflicting_rows_alone_are_rotated(self):
        # each expert has one row against the mean, so A_i = (D_c - D_c^T) / 2 of that row; three orthogonal A_i of one
        # length: c = sqrt 3, and D = mean + (sqrt 3 - 1) mean A
        common = 2 * tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
        experts = [common * torch.where(torch.arange(3) == i, -1.0, 1.0)[:, None] for i in range(3)]
        a, b = (2 - (3**0.5 - 1)) / 3, (3**0.5 - 1) / 3
        base = torch.eye(3, dtype=torch.float64)
        expected = tensor([[0, a, b], [b, 0, a], [a, b, 0]], dtype=torch.float64)
        close(run("orthomerge", experts, base=base, conflict_rows=True), expected)
        small = [expert * 1e-4 for expert in experts]
        close(run("orthomerge", small, base=base, conflict_rows=True, exact=True), expected * 1e-4, atol=1e-7)

    def test_a_reflection_falls_back_to_first_order(self):
        found = run("orthomerge", [diag(0, -2), diag(0.1, 0)], base=I2, exact=True)
        assert torch.isfinite(found).all()
        assert found.norm() < 3


@pytest.mark.parametrize("name", [*FACTORED, "orthomerge"])
class TestInvariants:
    def test_scaling_every_delta_scales_the_result(self, name):
        deltas = list(random(3, 9, 7))
        settings = {} if name == "orthomerge" else PLAIN.get(name, {})
        close(run(name, [3 * d for d in deltas], **settings), 3 * run(name, deltas, **settings), atol=1e-8)

    @pytest.mark.parametrize("shape", [(9, 7), (7, 9)])
    def test_odd_experts_are_finite(self, name, shape):
        deltas = random(3, *shape)
        deltas[1] = 0  # a zero expert
        deltas[0, 2] = 0  # a zero row
        least = METHODS[name].experts[0]
        for stack in (deltas, deltas * 0, deltas[:1].expand(least, *shape).clone()):
            assert torch.isfinite(run(name, list(stack))).all()
        single = adapters((2, 3, 1), shape)[0]
        assert torch.isfinite(run(name, single)).all()


@pytest.mark.parametrize("name", ["swudi", "orthomerge"])
def test_duplicates_are_one_expert(name):
    delta = random(1, 9, 7)[0]
    close(run(name, [delta, delta, delta], **({"ratio": 1.0, "tau": 1e9} if name == "swudi" else {})), delta, atol=1e-6)


@pytest.mark.parametrize("name", ["swudi", "knots", "orthomerge"])
def test_one_sided_methods_are_not_the_same_on_the_transpose(name):
    deltas, base = random(3, 6, 6), random(1, 6, 6, seed=9)[0]
    straight = run(name, list(deltas), base=base, **PLAIN.get(name, {}))
    assert (run(name, [d.T for d in deltas], base=base.T, **PLAIN.get(name, {})).T - straight).norm() > 0.01


@pytest.mark.parametrize("name", ["iso_c", "cart"])
def test_two_sided_methods_are(name):
    deltas = random(3, 8, 6)
    close(run(name, [d.T for d in deltas]).T, run(name, list(deltas)))


@pytest.mark.parametrize("name", FACTORED)
class TestAdapters:
    @pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
    def test_factors_give_what_the_dense_deltas_give(self, name, dtype, error):
        # tsv_m takes r / T directions whatever the rank: with fewer the dense route fills up with arbitrary ones
        low, dense = adapters((10, 10, 12) if name == "tsv_m" else (4, 4, 8), dtype=dtype)
        weights = [1.0, 0.5, 1.5]
        expected = run(name, dense, weights, **PLAIN.get(name, {}))
        found = run(name, low, weights, **PLAIN.get(name, {}))
        assert found.dtype == dtype
        assert (found - expected).norm() <= error * expected.norm()

    def test_no_decomposition_is_larger_than_the_ranks_together(self, name, monkeypatch):
        sides = []

        def watch(where, make):
            def spy(a, *rest, **options):
                sides.append((where, min(a.shape)))
                return make(a, *rest, **options)

            monkeypatch.setattr(torch.linalg, where, spy)

        for where in ("svd", "svdvals", "eigh", "qr"):
            watch(where, getattr(torch.linalg, where))
        run(name, adapters((4, 4, 8))[0], **PLAIN.get(name, {}))
        assert sides
        assert max(side for _, side in sides) <= 16


def test_iso_lifts_only_the_directions_that_adapters_have():
    low, _ = adapters((4, 4, 8))
    strengths = svd(run("iso_c", low)).s
    close(strengths[:16], strengths[:1].expand(16), atol=1e-9)
    assert strengths[16:].max() < 1e-9
    again = adapters((4,))[0]
    twice = Factors(again.deltas.repeat(2, 1, 1), low=again.low * 2)
    for name in ("iso_c", "iso_cts"):
        assert int((svd(run(name, twice)).s > 1e-9).sum()) == 4
