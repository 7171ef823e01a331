import math
from typing import Annotated

import torch
from torch import Tensor

from merging.decompose import svd
from merging.method import Lambda, Number, Paper, merge_method
from merging.methods.tsv_m import EXCLUDE
from merging.ops import column
from merging.spaces import adapters_core
from merging.spectral import Factors, Fold


@merge_method(
    title="CART",
    paper=Paper("Revisiting Weight Averaging for Model Merging", "2412.12153", 2024),
    space="factors",
    experts=(3, 64),
)
def cart(
    factors: Factors,
    weights: Tensor,
    *,
    rank_share: Annotated[
        float, Number(0.0, 1.0, 0.02, 0.1, "Rank", "Share of directions kept of each expert.", first=True)
    ],
    own_scale: Annotated[float, Number(0.0, 2.0, 0.05, 1.0, "Own part", "Strength of what only one expert has.")],
    lambda_: Annotated[float, Lambda()],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
) -> Tensor | Fold:
    """Averages the experts, then adds the strongest directions in which each differs from the average.

    `X_t = w_t D_t`, `lambda (mean X + own_scale sum_t top_k(X_t - mean X))`, k = ceil(rank_share min(m, n)); the
    paper's lambda is `own_scale` here. Of two experts the parts cancel to the plain mean: hence three or more.
    """
    space = adapters_core(factors)
    inner = space.factors
    k = math.ceil(rank_share * factors.full_rank - 1e-9)
    scaled = inner.deltas * column(weights, inner.deltas)
    mean = scaled.mean(0)
    key = ("cart", inner.ids, tuple(weights.tolist()))
    parts = [inner.extend((*key, t), k, lambda most, x=x: svd(x - mean, most)) for t, x in enumerate(scaled)]
    own = torch.stack([(part.u * part.s) @ part.v.T for part in parts]).sum(0)
    return space.back(lambda_ * (mean + own_scale * own))
