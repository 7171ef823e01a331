"""The fast routes of decompositions, each against LAPACK's gesdd in float64."""

import hashlib
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
import torch

from merging import decompose, spectral
from merging.decompose import SVD, singular_values, svd
from merging.eigen import eigenvalues, top_eigen
from merging.methods.resm import resm
from merging.methods.tsv_m import tsv_m
from merging.polar import polar
from merging.spectral import Factors

N = 320


def orthonormal(m: int, n: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).Q


def matrix(s: torch.Tensor, m: int = 512, seed: int = 0) -> torch.Tensor:
    """float32 (m, len(s)) with these singular values."""
    return ((orthonormal(m, len(s), seed) * s.double()) @ orthonormal(len(s), len(s), seed + 1).T).float()


def delta(seed: int, m: int = 512, n: int = N) -> torch.Tensor:
    """Like a fine-tune's: a low-rank part, some of it shared by all experts, in a bulk of noise."""
    own, shared = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    strength = torch.arange(1, 17).float() ** -0.6
    low = [torch.randn(m, 16, generator=g) * strength @ torch.randn(16, n, generator=g) for g in (own, shared)]
    return 1e-4 * (low[0] + low[1] + 2 * torch.randn(m, n, generator=own))


def reference(a: torch.Tensor) -> SVD:
    u, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
    return SVD(u, s, vh.T)


def dense(part: SVD) -> torch.Tensor:
    return (part.u.double() * part.s.double()) @ part.v.double().T


def straight(columns: torch.Tensor, atol: float) -> None:
    gram = columns.double().T @ columns.double()
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), atol=atol, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_eigenvectors_are_those_of_the_whole_decomposition(dtype):
    x = torch.randn(300, 250, dtype=dtype, generator=torch.Generator().manual_seed(1))
    gram = x.T @ x
    values, vectors = top_eigen(gram.clone(), 40)
    expected = torch.linalg.eigvalsh(gram.double()).flip(0)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert (values - expected[: len(values)]).abs().max() < tolerance * expected[0]
    assert (eigenvalues(gram.clone()) - expected).abs().max() < tolerance * expected[0]
    assert vectors.shape == (250, 40)
    straight(vectors, 10 * tolerance)
    assert (gram @ vectors - vectors * values[:40]).norm() < 10 * tolerance * expected[0]


@pytest.fixture
def no_gesdd(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the fast route was meant")

    monkeypatch.setattr(torch.linalg, "svd", refuse)


class TestTruncated:
    GAP = torch.cat([torch.linspace(1, 0.2, 60), torch.full((N - 60,), 0.01)])

    @pytest.mark.parametrize("wide", [False, True])
    def test_with_a_gap_it_is_the_reference_within_1e_4(self, wide):
        a = matrix(self.GAP).T if wide else matrix(self.GAP)
        found, exact = svd(a, 60), reference(a).head(60)
        assert found.u.shape == (a.shape[0], 60)
        assert found.v.shape == (a.shape[1], 60)
        assert (found.s - exact.s).abs().max() < 1e-5 * exact.s[0]
        assert (dense(found) - dense(exact)).norm() < 1e-4 * dense(exact).norm()
        straight(found.u, 1e-5)
        straight(found.v, 1e-5)

    @pytest.mark.parametrize("share", [0.05, 0.1, 1 / 3, 0.6])
    def test_in_a_bulk_of_noise_it_keeps_as_much_as_the_best(self, share, no_gesdd):
        a, k = delta(1), int(share * N)
        found = svd(a, k)
        torch.testing.assert_close(a, delta(1))  # LAPACK overwrote a copy
        exact = decompose.singular_values(a.double())[:k]
        assert (found.s - exact).abs().max() < 1e-5 * exact[0]
        straight(found.u, 1e-5)
        straight(found.v, 1e-5)
        left = (a.double() - dense(found)).square().sum()
        best = a.double().square().sum() - exact.square().sum()
        assert abs(float(left / best) - 1) < 1e-6

    def test_weak_directions_far_below_what_one_gram_matrix_tells(self, no_gesdd):
        a = matrix(torch.logspace(0, -6, N))  # the 160th is 1e-3 of the first: its square is noise in float32
        found = svd(a, 160)
        exact = torch.logspace(0, -6, N)[:160].double()
        assert ((found.s - exact).abs() / exact).max() < 1e-4
        straight(found.u, 1e-5)
        straight(found.v, 1e-5)

    @pytest.mark.parametrize("k", [40, 100])
    def test_more_directions_than_there_are_are_filled_with_orthonormal_ones_of_no_strength(self, k):
        a = matrix(torch.cat([torch.ones(8), torch.zeros(N - 8)]))
        found = svd(a, k)
        assert found.s[8:].max() < 1e-5
        straight(found.u, 1e-5)
        straight(found.v, 1e-5)
        assert Factors(a[None]).rank_within(0, k) == Factors(a[None]).numerical_rank(0) == 8

    @pytest.mark.parametrize("scale", [1e-25, 1e25, 0.0])
    def test_squares_that_vanish_or_overflow_take_gesdd(self, scale):
        found = svd(matrix(self.GAP) * scale, 20)
        expected = (reference(matrix(self.GAP)).s[:20] * scale).float()
        torch.testing.assert_close(found.s, expected, rtol=1e-4, atol=0)

    def test_no_direction(self):
        assert [tuple(x.shape) for x in (svd(delta(1), 0).u, svd(delta(1), 0).s)] == [(512, 0), (0,)]


def test_whole_spectrum_within_1e_6_of_the_largest_down_to_weak_ones():
    s = torch.logspace(0, -6, N)
    for a in (matrix(s), matrix(s).T):
        assert (singular_values(a) - s).abs().max() < 1e-6
        assert ((singular_values(a) - s).abs() / s)[: N * 2 // 3].max() < 1e-2  # 1e-4 of the largest


class TestPolar:
    @staticmethod
    def against_float64(a: torch.Tensor, tolerance: float, dropped: int, error: float) -> None:
        p, q, rh = torch.linalg.svd(a.double(), full_matrices=False)
        keep = q > tolerance * q[0]
        found, turn = polar(a, tolerance)
        assert (turn.shape, found.shape) == ((a.shape[1] - dropped, a.shape[1]), a.shape)
        assert (found @ turn.T @ turn - found).norm() < 1e-4 * found.norm()
        straight(found @ turn.T, 1e-4)
        assert int((~keep).sum()) == dropped
        assert (found - p[:, keep] @ rh[keep]).norm() < error * found.norm()

    def test_well_conditioned(self, monkeypatch):
        self.against_float64(torch.cat([orthonormal(512, 70, t) for t in range(3)], 1).float(), 0.0, 0, 5e-6)

    def test_nearly_square_with_directions_a_thousandth_as_strong(self):
        a = torch.cat([orthonormal(N, 106, t) for t in range(3)], 1).float()
        assert torch.linalg.cond(a.double()) > 300
        self.against_float64(a, 0.0, 0, 5e-5)
        straight(polar(a, 0.0)[0], 2e-5)

    def test_directions_that_a_float32_gram_matrix_loses(self):
        self.against_float64(matrix(torch.logspace(0, -3.5, 220)), 0.0, 0, 1e-4)  # in float32 2e-3

    def test_duplicates_are_dropped(self):
        u = orthonormal(512, 100, 1).float()
        self.against_float64(torch.cat([u, u, orthonormal(512, 50, 2).float()], 1), 1e-3, 100, 5e-6)

    def test_tolerance_cuts_in_the_middle_of_the_weak(self):
        a = matrix(torch.cat([torch.ones(220), torch.tensor([0.05, 0.02, 2e-3, 9e-4, 5e-4])]))
        self.against_float64(a, 1e-3, 2, 5e-6)

    def test_duplicates_with_tolerance_0_are_filled(self):
        u = orthonormal(512, 110, 1).float()
        found, turn = polar(torch.cat([u, u], 1), 0.0)
        assert len(turn) == 220
        straight(found, 1e-4)


@pytest.mark.parametrize("shape", [(512, N), (N, 512), (N, N)])
@pytest.mark.parametrize("budget", [0.3, 1.0])
def test_merges_agree_with_float64(shape, budget):
    deltas = torch.stack([delta(t, *shape) for t in (1, 2, 3)])
    settings = {
        "sparsity_threshold": 0.0, "outlier_strength": 0.0, "lambda_": 1.0, "rank_mode": "uniform",
        "outlier_mode": "none", "outlier_threshold": 3.0, "outlier_scope": "tensor", "outlier_stat": "std",
        "energy": 0.9, "exclude": (), "polar_tolerance": 1e-3, "rank_budget": budget,
    }  # fmt: skip
    for run in (lambda f: resm(f, torch.ones(3), **settings), lambda f: tsv_m(f, torch.ones(3), lambda_=1.0,
                exclude=(), polar_tolerance=0.0)):  # fmt: skip
        found, exact = run(Factors(deltas)).dense(), run(Factors(deltas.double())).dense()
        assert (found - exact).norm() < 0.02 * exact.norm()  # a bf16 checkpoint rounds 6 % of a delta away


def test_a_smaller_rank_is_served_from_a_larger_one(monkeypatch):
    asked = []
    monkeypatch.setattr(spectral, "svd", lambda a, k: asked.append(k) or svd(a, k))
    factors = Factors(delta(1)[None], ahead=30)
    for k in (10, 30, 20, 60, 40, None, 100):
        assert len(factors.svd(0, k).s) == (N if k is None else k)
    assert asked == [30, 60, N]


def test_rank_of_a_clipped_low_rank_delta_is_the_raw_ones():
    low = delta(1) * 0 + matrix(torch.cat([torch.linspace(1, 0.5, 20), torch.zeros(N - 20)]))
    clip = ("clip", lambda d: d.clamp(-0.01, 0.01))
    assert Factors(low[None]).rank_within(0, 60, *clip) == 20
    assert Factors(low[None]).rank_within(0, 15, *clip) == 15
    assert Factors(low[None] * 0).rank_within(0, 15, *clip) == 0


def test_the_lead_of_a_clipped_delta_tells_that_the_rank_suffices(monkeypatch):
    monkeypatch.setattr(Factors, "numerical_rank", lambda *_: pytest.fail("not needed"))
    assert Factors(delta(1)[None]).rank_within(0, 60, "clip", lambda d: d.clamp(-6e-4, 6e-4)) == 60


def fingerprint() -> str:
    found = tsv_m(Factors(torch.stack([delta(1), delta(2)])), torch.ones(2), lambda_=1.0, exclude=(),
                  polar_tolerance=0.0)  # fmt: skip
    return hashlib.sha256(found.dense().numpy().tobytes()).hexdigest()


SCRIPT = """
import torch
from tests.merging.test_fast_spectral import fingerprint
torch.set_num_threads(1)
print(fingerprint())
"""


def test_equal_bytes_from_run_to_run_and_side_by_side():
    other = subprocess.run([sys.executable, "-c", SCRIPT], cwd=Path(__file__).parents[2], capture_output=True,
                           text=True, check=True).stdout  # fmt: skip
    before, found = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    try:
        assert other == fingerprint() + "\n"
        alone = svd(delta(1), 60)
        threads = [Thread(target=lambda i=i: found.setdefault(i, svd(delta(1), 60))) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[i].u, alone.u) and torch.equal(found[i].s, alone.s) for i in range(4))
