from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from merging.decompose import SVD, real_rank, svd
from merging.method import Lambda, Number, merge_method
from merging.methods.iso_c import PAPER, real_sum
from merging.methods.tsv_m import EXCLUDE
from merging.spaces import adapters_core
from merging.spectral import Factors, Fold, fold

DUPLICATE = 1e-6  # directions closer than this are one: experts that are the same would get arbitrary partners


@merge_method(title="Iso-CTS", paper=PAPER, space="factors")
def iso_cts(
    factors: Factors,
    weights: Tensor,
    *,
    common_space_fraction: Annotated[
        float, Number(0.0, 1.0, 0.05, 0.8, "Common share", "Directions taken from the sum of all.", first=True)
    ],
    lambda_: Annotated[float, Lambda(3.0)],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
) -> Tensor | Fold:
    """Keeps the sum's strongest directions, adds what each expert has beside them, and makes all equally strong.

    Of r directions each expert brings `p = round((r - floor(f r)) / T)` from the SVD of `(I - U_c U_c^T) w_t D_t`,
    the sum its r - T p strongest; polar factors of both sides, the mean of the singular values for all (algorithm 2).
    r is the numerical rank of the sum, so that a low-rank sum has no arbitrary direction lifted (FusionBench lifts
    them); adapters are merged in the core of their factors.
    """
    space = adapters_core(factors)
    inner = space.factors
    total = real_sum(inner, weights)
    r, n = len(total.s), len(weights)
    own = min(round((r - int(common_space_fraction * r)) / n), r // n)
    common = total.head(r - n * own)
    key = ("cts", tuple(weights.tolist()), own)
    parts = [
        inner.remember((*key, inner.ids, t), lambda t=t: _beside(inner, t, weights[t], common, own)) for t in range(n)
    ]
    folded = fold(inner, [*parts, common], [1.0] * (n + 1), tolerance=DUPLICATE, key=key)
    level = float(folded.x.mean()) if len(folded.x) else 0.0
    return space.back(replace(folded, x=torch.full_like(folded.x, lambda_ * level), ranks=(), strengths=None))


def _beside(factors: Factors, t: int, weight: Tensor, common: SVD, k: int) -> SVD:
    """k triplets of `w_t D_t` outside the common output directions, above what rounding leaves of those inside."""
    delta = weight * factors.deltas[t]
    rest = svd(delta - common.u @ (common.u.T @ delta), k)
    noise = max(16 * torch.finfo(delta.dtype).eps * float(delta.norm()), abs(float(weight)) * factors.noise)
    kept = real_rank(rest.s, max(delta.shape) ** 0.5, noise)
    return rest.head(kept if kept and rest.s[0] > noise else 0)
