"""The closed forms of a merged delta against the matrix itself, in float64."""

import math

import pytest
import torch

from merging.decompose import SVD
from merging.measures import cross, numbers_of_delta, numbers_of_fold
from merging.spectral import Factors, fold


def deltas(seed=0, m=12, n=9):
    return torch.randn(3, m, n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_a_vector_is_enough_for_every_move_of_a_fold(tolerance):
    experts = deltas()
    factors = Factors(experts)
    parts = [factors.svd(t).head(3) for t in range(3)]
    crossed = None
    for scales in ([1.0, 1.0, 1.0], [0.3, -1.2, 2.0], [0.0, 0.0, 0.0]):
        merged = fold(factors, parts, scales, tolerance=tolerance, key="raw")
        assert (merged.dropped > 0) == (tolerance > 0)
        crossed = crossed or cross(merged, experts)
        assert crossed.u is merged.u
        ours, dense = numbers_of_fold(merged, crossed), merged.dense().double()
        assert ours.norm == pytest.approx(float(dense.norm()), rel=1e-5, abs=1e-9)
        assert ours.along == pytest.approx([float((dense * e).sum()) for e in experts.double()], rel=1e-4, abs=1e-5)
        torch.testing.assert_close(merged.singular_values().double(), torch.linalg.svdvals(dense), rtol=0, atol=1e-5)
        cosines = ours.cosines([float(e.norm()) for e in experts])
        assert all(map(math.isnan, cosines)) if not any(scales) else all(abs(c) <= 1 for c in cosines)


def test_any_delta_by_hand():
    delta, expert = torch.tensor([[3.0, 0.0], [0.0, -4.0]]), torch.tensor([[[1.0, 7.0], [7.0, 0.0]]])
    found = numbers_of_delta(delta, expert)
    assert found.norm == 5
    assert found.along == (3.0,)
    assert found.cosines([10.0]) == pytest.approx([0.06])


def test_svd_heads_of_other_length_share_nothing():
    part = SVD(torch.eye(3), torch.tensor([3.0, 2.0, 1.0]), torch.eye(3))
    found = fold(Factors(torch.eye(3)[None]), [part.head(2)], [1.0], tolerance=0.0, key="raw")
    assert numbers_of_fold(found, cross(found, torch.eye(3)[None])).norm == pytest.approx(13**0.5)
