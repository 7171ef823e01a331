"""Spaces: reversible changes of coordinates in which any method on deltas can run.

A space holds the deltas in new coordinates and the way back. `core` is the space that all experts' directions span,
small and without loss for adapters; `knots` puts the experts into one basis of output directions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from merging.decompose import basis, svd
from merging.spectral import Factors, Fold, dense

CORE_TOLERANCE = 1e-6  # directions that duplicate adapters share differ by less
KNOTS_TOLERANCE = 1e-5  # the reference cuts at 1e-4 absolute, which depends on the size of the deltas


@dataclass(frozen=True)
class Space:
    """`factors`: the deltas (T, a, b) in these coordinates; `back(merged)`: a merge of them as (m, n)."""

    factors: Factors
    back: Callable[[Tensor | Fold], Tensor | Fold]


def full(factors: Factors) -> Space:
    """The coordinates of the weights themselves."""
    return Space(factors, lambda merged: merged)


def core(factors: Factors) -> Space:
    """Core Space (Panariello et al. 2025, arXiv 2509.17786): `M_t = U^T D_t V`, `D = U M V^T`, U and V common to all.

    U (m, a) and V (n, b) span the experts' singular vectors, by QR in float64; a, b <= the sum of the ranks. Adapters
    lose nothing; other deltas are cut at their numerical rank first (a "rank k core"). A method sees matrices that
    have no arbitrary null directions; where it counts directions (r / T) it counts those of the weights.
    """

    def make() -> Space:
        parts = [factors.real(t) for t in range(len(factors.deltas))]
        left = basis(torch.cat([part.u.double() for part in parts], 1), CORE_TOLERANCE)
        right = basis(torch.cat([part.v.double() for part in parts], 1), CORE_TOLERANCE)
        if left.shape[1] == 0:  # all deltas are 0
            return full(factors)
        dtype = factors.deltas.dtype
        low = [((left.T @ (part.u * part.s).double()), part.v.double().T @ right) for part in parts]
        deltas = torch.stack([b @ a for b, a in low]).to(dtype)
        rounded = tuple((b.to(dtype), a.to(dtype)) for b, a in low)
        left, right = left.to(dtype), right.to(dtype)

        def back(merged: Tensor | Fold) -> Fold:
            small = merged if isinstance(merged, Fold) else fold_of(merged)
            return replace(small, u=left @ small.u, v=right @ small.v)

        return Space(Factors(deltas, 0.0, factors.ids, rounded, factors.full_rank), back)

    return factors.remember(("core", factors.ids), make)


def adapters_core(factors: Factors) -> Space:
    """The core where every expert is an adapter: there it is exact and small; else the full space."""
    return core(factors) if factors.only_adapters else full(factors)


def knots(factors: Factors) -> Space:
    """KnOTS (Stoica et al. 2024, arXiv 2410.19735): `[D_1 .. D_T] = U S [V_1^T .. V_T^T]`, a method sees the V_t^T.

    From the experts' own triplets the SVD is one of `[U_1 S_1 .. U_T S_T]` (m, R). Singular values below 1e-5 of the
    largest are dropped. Sums come out as without it. Entries of pure rounding count as 0, or their sign would vote.
    """

    def make() -> Space:
        parts = [factors.real(t) for t in range(len(factors.deltas))]
        joint = svd(torch.cat([part.u * part.s for part in parts], 1))
        joint = joint.head(int((joint.s > KNOTS_TOLERANCE * joint.s[:1]).sum()))
        if len(joint.s) == 0:
            return full(factors)
        dtype = factors.deltas.dtype
        mixers = joint.v.split([len(part.s) for part in parts])
        rows = torch.stack([mixer.T @ part.v.T for mixer, part in zip(mixers, parts, strict=True)])
        dust = 16 * torch.finfo(rows.dtype).eps  # a row has length 1 over all experts
        rows = torch.where(rows.abs() > dust, rows, 0.0).to(dtype)
        strengths = (joint.u * joint.s).to(dtype)

        def back(merged: Tensor | Fold) -> Tensor:
            return strengths @ dense(merged)

        return Space(Factors(rows, 0.0, factors.ids), back)

    return factors.remember(("knots", factors.ids), make)


def fold_of(merged: Tensor) -> Fold:
    found = svd(merged)
    return Fold(found.u, found.s, found.v)


SPACES = {"full": full, "core": core, "knots": knots}
