from typing import Annotated

import torch
from torch import Tensor

from merging.masks import changed
from merging.method import Number, merge_method
from merging.methods.ram import EPSILON, PAPER
from merging.ops import column


@merge_method(title="RAM+ (tensor by tensor)", paper=PAPER, uses_weight=False)
def ramplus_tl(
    deltas: Tensor,
    weights: Tensor,
    *,
    r: Annotated[float, Number(0.0, 1.0, 0.05, 0.1, "Boost r", "How much an expert's own changes grow.", first=True)],
    alpha: Annotated[
        float, Number(0.0, 5.0, 0.05, 0.2, "Limit α", "Overlap beyond this boosts no further.", first=True)
    ],
    epsilon: Annotated[float, EPSILON],
) -> Tensor:
    """Strengthens what one expert alone changed by how much it shares, and averages what several changed.

    As `ram`, with expert t's unique entries times `1 + r clip(shared_t / unique_t, 0, alpha)`, both counted in this
    tensor. The paper counts over the whole model: this is mergekit's tensor-local form. deltas (T, *shape).
    """
    moved, by = changed(deltas, epsilon)
    flat = (moved & (by == 1)).reshape(len(deltas), -1), (moved & (by > 1)).reshape(len(deltas), -1)
    unique, shared = (part.sum(1).to(deltas.dtype) for part in flat)
    boost = 1 + r * (shared / unique.clamp(min=1)).clamp(0, alpha)
    scale = torch.where(by == 1, column(boost, deltas), 1.0)
    return (deltas * moved * scale).sum(0) / by.clamp(min=1)
