"""What a merge keeps of the experts' outputs: cases by hand, and the closed form against going over the matrix."""

import math

import pytest
import torch

from merging.calibration import Inputs
from merging.outputs import along, kept_by, kept_by_fold
from merging.spectral import Fold

ONE, TWO = torch.diag(torch.tensor([2.0, 0.0])), torch.eye(2)
WHITE = torch.eye(2)


def inputs(*grams, transposed=False):
    return Inputs(grams.__getitem__, transposed=transposed)


def test_by_hand():
    deltas = torch.stack([ONE, TWO])
    assert kept_by(ONE, deltas, inputs(WHITE, WHITE)) == pytest.approx([1.0, 0.0])  # |diag(1, -1)|^2 of |I|^2 is lost
    assert kept_by(torch.zeros(2, 2), deltas, inputs(WHITE, WHITE)) == [0.0, 0.0], "the base keeps nothing"
    # only the second input counts for the second expert, and there diag(2, 0) does nothing
    assert kept_by(ONE, deltas, inputs(WHITE, torch.diag(torch.tensor([0.0, 1.0])))) == pytest.approx([1.0, 0.0])
    assert kept_by(3 * TWO, deltas, inputs(WHITE, WHITE))[1] == pytest.approx(-3.0), "further away than the base"


def test_an_expert_without_output_has_no_share():
    found = kept_by(ONE, torch.stack([ONE, torch.zeros(2, 2)]), inputs(WHITE, WHITE))
    assert found[0] == 1.0
    assert math.isnan(found[1])


@pytest.mark.parametrize("transposed", [False, True])
def test_a_fold_says_the_same_from_one_vector(transposed):
    random = torch.Generator().manual_seed(0)
    deltas = torch.randn(3, 7, 5, generator=random, dtype=torch.float64)
    u, v = (torch.linalg.qr(torch.randn(n, 4, generator=random, dtype=torch.float64)).Q for n in (7, 5))
    x = torch.randn(3, 20, 7 if transposed else 5, generator=random, dtype=torch.float64)
    read = inputs(*(x.mT @ x), transposed=transposed)
    known = along(Fold(u, torch.ones(4).double(), v), deltas, read)
    for strengths in (torch.tensor([3.0, 2, 1, 0.5]), torch.tensor([0.1, -1, 4, 0])):
        fold = Fold(u, strengths.double(), v)
        assert kept_by_fold(fold.x, known) == pytest.approx(kept_by(fold.dense(), deltas, read), abs=1e-10)
