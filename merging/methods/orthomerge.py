from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from merging.decompose import cayley, eigen, rotation_of
from merging.method import Lambda, Paper, Switch, merge_method
from merging.methods.tsv_m import EXCLUDE
from merging.ops import column
from merging.polar import polar
from merging.spectral import Factors


@merge_method(
    title="OrthoMerge",
    paper=Paper("Orthogonal Model Merging", "2602.05943", 2026),
    space="factors",
    takes_base=True,
)
def orthomerge(
    factors: Factors,
    weights: Tensor,
    *,
    base: Tensor,
    lambda_: Annotated[float, Lambda()],
    exact: Annotated[bool, Switch(False, "Exact rotations", "Slower; for deltas over 5 % of the base.")],
    conflict_rows: Annotated[bool, Switch(False, "Conflicting rows only", "Rotate only rows against the mean.")],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
) -> Tensor:
    """Averages the experts, and gives their average rotation of the inputs back the experts' mean strength.

    `X_t = w_t D_t`. Exact: R_t = polar(W_0^T (W_0 + X_t)), its Cayley form Q_t, Q = mean ||Q_t|| in the direction of
    sum Q_t, and `D = W_0 R - W_0 + mean(W_0 + X_t - W_0 R_t)`. First order (ours, .4 % from it where deltas are 1 %
    of W_0): `D = mean X + (c - 1) W_0 mean A`, where A_t solves the Lyapunov equation of W_0^T W_0 and c =
    mean ||A_t|| / ||mean A||. Rows in conflict have a negative cosine with the mean delta (the authors' variant C).
    `lambda` scales D. Adapters take the dense route.
    """
    deltas = factors.deltas * column(weights, factors.deltas)
    mean = deltas.mean(0)
    base = base.to(deltas.dtype)
    turning = deltas
    if conflict_rows:
        turning = deltas * ((deltas * mean).sum(2, keepdim=True) < 0)
    values, vectors = factors.remember("base eigen", lambda: _base_eigen(base))
    skews = [_first_order(base, delta, values, vectors) for delta in turning]
    if not exact:
        return lambda_ * (mean + base @ (_merged_skew(skews) - torch.stack(skews).mean(0)) * 2)
    found = []
    for delta, near in zip(turning, skews, strict=True):
        skew = cayley(polar(base.T @ (base + delta), 0.0)[0])
        found.append(near if skew is None else skew)
    rotations = torch.stack([rotation_of(skew) for skew in found]).mean(0)
    return lambda_ * (mean + base @ (rotation_of(_merged_skew(found)) - rotations))


def _base_eigen(base: Tensor) -> tuple[Tensor, Tensor]:
    """Of `W_0^T W_0`: eigenvalues p and eigenvectors; found in float64, because a Gram matrix squares the condition."""
    values, vectors = eigen(base.double().T @ base.double())
    return values.clamp(min=0).to(base.dtype), vectors.to(base.dtype)


def _first_order(base: Tensor, delta: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """`A / 2`, where `P A + A P = W_0^T D - D^T W_0`, P = W_0^T W_0; a sum p_i + p_j is at least 1e-6 p_max."""
    product = (base @ vectors).T @ (delta @ vectors)
    sums = values[:, None] + values[None, :]
    inner = (product - product.T) / sums.clamp(min=max(1e-6 * float(values.max()), torch.finfo(base.dtype).tiny))
    return vectors @ inner @ vectors.T / 2


def _merged_skew(skews: Sequence[Tensor]) -> Tensor:
    """Direction of the sum, mean length; 0 where the experts' rotations cancel to rounding."""
    total = torch.stack(list(skews)).sum(0)
    length = torch.stack([skew.norm() for skew in skews]).mean()
    size = total.norm()
    return total * (length / size) if size > 1e-5 * len(skews) * length else torch.zeros_like(total)
