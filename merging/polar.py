"""Polar factors of tall matrices: the nearest ones with orthonormal columns."""

import torch
from torch import Tensor

from merging.eigen import gram, top_eigen

NARROW = 96  # fewer columns take gesdd: the Gram route gains little there
WEAK = 0.1  # of the strongest direction; weaker ones are found again, in float64
LOST = 1e-6  # of the strongest direction; weaker ones are noise in float32, and only gesdd fills them


def polar(a: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The partial isometry `P R^T` of `a = P Q R^T` (m, n), without directions where Q <= tolerance Q_1; and `R^T`, a
    row for each of those left.

    Plain polar factors (tolerance 0) fill the directions that duplicate experts share with arbitrary vectors.
    """
    if a.shape[1] == 0:
        return a, a.new_empty(0, 0)
    if a.dtype == torch.float32 and NARROW <= a.shape[1] <= a.shape[0]:
        found = _by_gram(a, tolerance)
        if found is not None:
            return found
    p, q, rh = torch.linalg.svd(a, full_matrices=False)
    keep = q > tolerance * q[0] if tolerance > 0 else torch.ones_like(q, dtype=torch.bool)
    return (p @ rh, rh) if keep.all() else (p[:, keep] @ rh[keep], rh[keep])


def _by_gram(a: Tensor, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """`sum_i a r_i r_i^T / q_i` from the eigenvectors r of `a^T a`; None where `a` has lost directions to fill.

    The columns are unit vectors, or nearly. A float32 Gram matrix tells strong directions only; what it leaves of the
    weak ones, few as a rule, is cleared of the strong and takes a float64 Gram matrix of its own.
    """
    values, r = top_eigen(gram(a), a.shape[1])
    strong = int((values > WEAK**2 * values[0]).sum())
    if not strong:  # nothing but zeros
        return None
    r, weak = r[:, :strong], r[:, strong:]
    p = a @ r
    squares = p.square().sum(0)
    if weak.shape[1]:
        left = a @ weak
        share = (p.T @ left) / squares.unsqueeze(1)
        left, weak = (left - p @ share).double(), weak - r @ share
        q, turn = torch.linalg.eigh(left.T @ left)
        least = max(tolerance, LOST if tolerance == 0 else 0.0) ** 2 * float(squares.max())
        keep = q > least
        if tolerance == 0 and not keep.all():
            return None
        turn = turn[:, keep]
        p = torch.cat([p / squares.sqrt(), ((left @ turn) / q[keep].sqrt()).to(a.dtype)], 1)
        r = torch.cat([r, weak @ turn.to(a.dtype)], 1)
    else:
        p = p / squares.sqrt()
    return p @ r.T, r.T
