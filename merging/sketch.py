"""Leading triplets for a first picture: many times faster than exact ones, and never part of a merge that is kept."""

import math

import torch
from torch import Generator, Tensor

from merging.decompose import SVD
from merging.eigen import gram, top_eigen

OVERSAMPLING = 1.5  # directions searched for each one kept
SHIFT = 1e-6  # of the trace, above a float32 Gram matrix's rounding noise


def sketch(a: Tensor, k: int, *, power: int = 1) -> SVD:
    """About the k leading triplets of float32 `a` (m, n), by a randomised range finder (Halko et al. 2011, 4.4).

    power: steps of the power iteration, two products each. With one, on deltas with a bulk of noise,
    `a - u diag(s) v^T` is at most 3 % longer than at best and the singular values are low, by 8 % on average; two steps
    halve both. Products of matrices but for the core of 1.5 k columns, on any device; the same in every run.
    """
    if a.shape[0] < a.shape[1]:
        found = sketch(a.T, k, power=power)
        return SVD(found.v, found.s, found.u)
    k = min(k, a.shape[1])
    span = _mixed(a, min(a.shape[1], math.ceil(OVERSAMPLING * k)))
    for _ in range(power):
        span = a @ _orthonormal(a.T @ span, passes=1)
    span = _orthonormal(span, passes=2)
    inside = a.T @ span
    values, turn = top_eigen(gram(inside), k)
    s = values.clamp(min=0).sqrt()
    u, v = span @ turn, inside @ turn
    return SVD(u, s, v / s.clamp(min=torch.finfo(s.dtype).tiny))


def with_tail(s: Tensor, norm: float, n: int) -> Tensor:
    """All n singular values of a delta of this norm: the leading ones `s` (k,) as found, the others estimated.

    These fall as a power of the distance from the end, `s_k (1 - i / (n - k))^p`, with the p that gives the norm.
    """
    rest = n - len(s)
    if not rest or not len(s) or float(s[-1]) == 0:
        return torch.cat([s, s.new_zeros(rest)])
    mean = max(0.0, norm**2 - float(s.double().square().sum())) / (rest * float(s[-1]) ** 2)
    falling = 1 - (torch.arange(rest, device=s.device) + 0.5) / rest
    return torch.cat([s, s[-1] * falling ** (max(0.0, (1 / mean - 1) / 2) if mean > 0 else math.inf)])


def _mixed(a: Tensor, width: int) -> Tensor:
    """Each column of `a`, with a random sign, in one of `width` sums: a start at a fifth of a dense one's cost."""
    n, random = a.shape[1], Generator().manual_seed(0)
    place = (torch.randperm(n, generator=random) % width).to(a.device)
    signs = (torch.randint(0, 2, (n,), generator=random) * 2 - 1).to(a)
    if a.stride(1) == 1:
        return a.new_zeros(len(a), width).index_add_(1, place, a * signs)
    return a.new_zeros(width, len(a)).index_add_(0, place, (a * signs).T).T


def _orthonormal(a: Tensor, passes: int) -> Tensor:
    """Columns that span those of `a`: Cholesky QR, whose second pass finds the digits that the first loses. Where they
    are nearly dependent a shifted pass comes before (Fukaya et al. 2020), where they are dependent it is Householder's.
    """
    for shifts in ((0.0,) * passes, (SHIFT,) + (0.0,) * passes):
        q = a
        for shift in shifts:
            squares = q.T @ q
            squares.diagonal().add_(shift * squares.trace())
            factor, failed = torch.linalg.cholesky_ex(squares, upper=True)
            if int(failed):
                break
            q = torch.linalg.solve_triangular(factor, q, upper=True, left=False)
        else:
            return q
    return torch.linalg.qr(a).Q
