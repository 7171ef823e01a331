from typing import Annotated

import torch
from torch import Tensor

from merging.decompose import SVD
from merging.method import Number, Paper
from merging.shaper import shaper
from merging.spectral import Factors


@shaper(
    title="SVC",
    paper=Paper("When Shared Knowledge Hurts: Spectral Over-Accumulation", "2602.05536", 2026),
    sees="spectrum",
)
def svc(
    merged: SVD,
    experts: Factors,
    *,
    alpha: Annotated[float, Number(0.05, 1.0, 0.05, 1.0, "SVC α", "Below 1 also boosts unshared directions.")],
) -> Tensor:
    """Takes back what several experts put into the same direction more than once.

    `g_r = T / sum_t max(alpha, s_tr)`, `s_tr = <a_r, a_tr> / ||a_tr||^2`, `a_tr = u_r^T D_t`, `a_r = d_r v_r^T`; an
    expert that is absent from a direction counts alpha. Linear in d inside the maximum only: not free of scale.
    """
    total = torch.zeros_like(merged.s)
    for delta, low in zip(experts.deltas, experts.low, strict=True):
        rows = merged.u.T @ delta if low is None else (merged.u.T @ low[0]) @ low[1]
        power = rows.square().sum(1)
        present = power > 1e-12 * power.max()
        counted = merged.s * (rows * merged.v.T).sum(1) / torch.where(present, power, 1.0)
        total += torch.where(present, counted, 0.0).clamp(min=alpha)
    return merged.s * len(experts.deltas) / total
