from typing import Annotated

import torch
from torch import Tensor

from merging.decompose import SVD, real_rank, svd
from merging.method import Lambda, Paper, merge_method
from merging.methods.tsv_m import EXCLUDE
from merging.spaces import adapters_core
from merging.spectral import Factors, Fold

PAPER = Paper("No Task Left Behind: Isotropic Model Merging", "2502.04959", 2025)


def real_sum(factors: Factors, weights: Tensor) -> SVD:
    """The triplets of `sum w_t D_t` above rounding noise."""

    def decompose() -> SVD:
        found = svd(torch.tensordot(weights, factors.deltas, 1))
        return found.head(real_rank(found.s, max(factors.deltas.shape[1:]) ** 0.5, factors.sum_noise(weights)))

    return factors.remember(("sum", factors.ids, tuple(weights.tolist())), decompose)


@merge_method(title="Iso-C", paper=PAPER, space="factors")
def iso_c(
    factors: Factors,
    weights: Tensor,
    *,
    lambda_: Annotated[float, Lambda(3.0)],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
) -> Tensor | Fold:
    """Adds the experts' deltas and gives every direction of the sum the same strength.

    `sum w_t D_t = U S V^T`, then `lambda mean(S) U V^T` (equation 5). Only directions above rounding noise count, in
    the mean and in the result: FusionBench lifts the arbitrary null directions of a low-rank sum (LoRA) as well, so
    we agree with it at full rank alone. Adapters are merged in the core of their factors.
    """
    space = adapters_core(factors)
    total = real_sum(space.factors, weights)
    level = float(total.s.mean()) if len(total.s) else 0.0
    return space.back(Fold(total.u, torch.full_like(total.s, lambda_ * level), total.v))
