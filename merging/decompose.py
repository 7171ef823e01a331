"""Exact singular value decompositions of one matrix.

Float32 matrices go through the Gram matrix of their smaller side, of which only the leading eigenvectors are found;
where that would lose digits, where it does not pay, and in float64 it is LAPACK's gesdd.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from merging.eigen import eigenvalues, gram, top_eigen

SMALL = 192  # smaller sides take gesdd: the Gram route gains nothing there
MOST = 0.6  # of all directions; to find more of them gesdd is as fast
SINGLE = 1e-3  # (s_k / s_1)^2 down to which the eigenvectors of one float32 Gram matrix are good enough
SAFE = 1e-20  # squared norms between this and its inverse neither vanish nor overflow

# Relative error (root mean square, at worst) that two roundings to the stored dtype leave in a difference:
# sqrt(2/3) unit roundoffs each. Half a unit roundoff, as first proposed, counted 40 directions in a rank-4 delta.
ROUNDOFF = {torch.bfloat16: (2 / 3) ** 0.5 * 2.0**-8, torch.float16: (2 / 3) ** 0.5 * 2.0**-11}


@dataclass(frozen=True)
class SVD:
    """Leading triplets: u (m, k), s (k,) descending, v (n, k)."""

    u: Tensor
    s: Tensor
    v: Tensor

    def head(self, k: int | None) -> "SVD":
        return SVD(self.u[:, :k], self.s[:k], self.v[:, :k])


def svd(a: Tensor, k: int | None = None) -> SVD:
    """The k leading triplets of `a` (m, n), or all of them.

    Against float64: singular values within 1e-5 of the largest; `u diag(s) v^T` within 1e-4 where the spectrum has a
    gap at k, and everywhere as near to `a` as the best matrix of its rank, within 1e-6. Where the cut lies in a flat
    bulk of noise its directions are not determined by `a`, and turn by up to 1 %.
    """
    k = min(a.shape) if k is None else min(k, *a.shape)
    if k == 0:
        return SVD(a[:, :0], a.new_empty(0), a[:0].T)
    if a.dtype == torch.float32 and min(a.shape) >= SMALL and k <= MOST * min(a.shape):
        wide = a.shape[0] < a.shape[1]
        found = _by_gram(a.T if wide else a, k)
        if found is not None:
            return SVD(found.v, found.s, found.u) if wide else found
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return SVD(u, s, vh.T).head(k)


def _by_gram(a: Tensor, k: int) -> SVD | None:
    """From the eigenvectors of `a^T a` (m >= n), float32; None where squares vanish or overflow.

    Directions too weak beside the strongest are found in what is left of `a` without the strong ones.
    """
    squares = gram(a)
    if not SAFE < float(squares.trace()) < 1 / SAFE:
        return None
    values, v = top_eigen(squares, k)
    strong = int((values >= SINGLE * values[0]).sum())
    v = v[:, :strong]
    u, s = _unit(a @ v)  # a Rayleigh quotient: s is exact to second order
    u = _straight(u)
    if strong < k:
        weights = a.T @ u  # one step of iteration more, or weak directions would hold a share of strong ones
        v, s = _unit(weights)
        left = a - u @ weights.T
        left -= u @ (u.T @ left)  # again: where `a` has no weak directions, rounding noise is all that is left
        left -= (left @ v) @ v.T
        rest = _by_gram(left, k - strong)
        if rest is None:
            return None
        u, v, s = (torch.cat(pair, -1) for pair in ((u, rest.u), (v, rest.v), (s, rest.s)))
        u, v = _straight(u), _straight(v)
    order = s.argsort(descending=True, stable=True)
    return SVD(u[:, order], s[order], v[:, order])


def _unit(columns: Tensor) -> tuple[Tensor, Tensor]:
    lengths = torch.linalg.vector_norm(columns, dim=0)
    return columns / lengths, lengths


def _straight(columns: Tensor) -> Tensor:
    """Columns that rounding left not quite orthogonal, made so (a step of Newton and Schulz)."""
    return 1.5 * columns - 0.5 * (columns @ (columns.T @ columns))


def svd_of_product(b: Tensor, a: Tensor) -> SVD:
    """The r triplets of `b @ a` (b (m, r), a (r, n)): QR of both, then an SVD of the r x r core."""
    left, core_b = torch.linalg.qr(b)
    right, core_a = torch.linalg.qr(a.T)
    u, s, vh = torch.linalg.svd(core_b @ core_a.T, full_matrices=False)
    return SVD(left @ u, s, right @ vh.T)


def singular_values(a: Tensor) -> Tensor:
    """Singular values of a matrix or a batch of matrices, descending; those of a large float32 matrix within 1e-6.

    The float64 Gram matrix tells them down to 1e-7 of the largest.
    """
    if a.dim() == 2 and a.dtype == torch.float32 and min(a.shape) >= SMALL:
        tall = (a if a.shape[0] >= a.shape[1] else a.T).double()
        return eigenvalues(gram(tall)).clamp(min=0).sqrt().float()
    return torch.linalg.svdvals(a)


def real_rank(s: Tensor, roundoffs: float, noise: float = 0.0) -> int:
    """How many singular values `s` (descending) are no rounding noise; at least 1 unless all are 0.

    roundoffs: noise of the arithmetic, in roundoffs of the largest: the longer side where too few do no harm (ranks),
    its root where none may be lost (measured noise is a sixth of that). noise: what rounding the stored weights leaves.
    """
    if len(s) == 0 or s[0] == 0:
        return 0
    floor = float(s[0]) * roundoffs * torch.finfo(s.dtype).eps
    return max(1, int((s > max(floor, noise)).sum()))


def basis(a: Tensor, tolerance: float) -> Tensor:
    """Orthonormal columns that span those of `a` (m, R), without directions below `tolerance` of the strongest."""
    q, r = torch.linalg.qr(a)
    u, s, _ = torch.linalg.svd(r, full_matrices=False)
    return q @ u[:, s > tolerance * s[:1]]


def eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (descending) and eigenvectors (columns) of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(a)
    return values.flip(0), vectors.flip(1)


def cayley(rotation: Tensor) -> Tensor | None:
    """The skew `(R - I)(R + I)^-1` of an orthogonal matrix; None where it reflects or turns by nearly 180 degrees."""
    one = torch.eye(len(rotation), dtype=rotation.dtype, device=rotation.device)
    skew, failed = torch.linalg.solve_ex(rotation + one, rotation - one)
    if int(failed) or not torch.isfinite(skew).all() or float(skew.abs().max()) > 1e3:
        return None
    return (skew - skew.T) / 2


def rotation_of(skew: Tensor) -> Tensor:
    """The rotation `(I - Q)^-1 (I + Q)` of a skew matrix, Cayley's way back."""
    one = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(one - skew, one + skew)


def noise_floor(base: Tensor) -> float:
    """Largest singular value that rounding two stored weights leaves in their difference; 0 for float32.

    Of a stack (..., m, n) that of a matrix in it.
    """
    return rounding_noise(base.dtype, base.float().square().mean().sqrt().item(), *base.shape[-2:])


def rounding_noise(dtype: torch.dtype, rms: float, m: int, n: int) -> float:
    """The same of an (m, n) base whose entries have the root mean square `rms`."""
    return ROUNDOFF.get(dtype, 0.0) * rms * (m**0.5 + n**0.5)
