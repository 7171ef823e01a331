from typing import Annotated

import torch
from torch import Tensor

from merging.method import Choice, Lambda, Number, Paper, merge_method
from merging.ops import column

PAPER = Paper("Parameter Competition Balancing for Model Merging", "2410.02396", 2024)


@merge_method(title="PCB", paper=PAPER)
def pcb(
    deltas: Tensor,
    weights: Tensor,
    *,
    ratio: Annotated[float, Number(0.0, 1.0, 0.01, 0.1, "Ratio", "Share of entries that win.", first=True)],
    clamp: Annotated[float, Number(0.0, 0.2, 0.005, 0.01, "Clamp", "Share of extremes pulled in at each end.")],
    lambda_: Annotated[float, Lambda()],
    inter: Annotated[str, Choice(("normalized", "raw"), "Competition", "Of relative entries, or as in the paper.")],
) -> Tensor:
    """Scores every entry by its size and by its agreement with the others, and averages the winners.

    Per tensor, a the weighted |D_t| clamped at its `clamp` quantiles, m = minmax(a): score `exp(T m^2) tanh(x sum x)`,
    cut from below at its `1 - ratio` quantile, minmaxed to s; `sum s_t D_t / sum s_t`. x is sign(D) m (`normalized`, so
    that the deltas' size does not matter) or D itself (`raw`, the paper's: nearly 0 for small deltas).
    """
    flat = (deltas * column(weights, deltas)).reshape(len(deltas), -1)
    size = _between(flat.abs(), clamp, 1 - clamp)
    share = _minmax(size)
    signs = torch.sign(flat)
    x = signs * share if inter == "normalized" else flat
    score = _minmax(_between(torch.exp(len(flat) * share.square()) * torch.tanh(x * x.sum(0)), 1 - ratio, 1.0))
    merged = (score * signs * size).sum(0) / score.sum(0).clamp(min=1e-12)
    return lambda_ * merged.view(deltas.shape[1:])


def _between(rows: Tensor, low: float, high: float) -> Tensor:
    """Each row clamped to its own `low` and `high` quantiles (entries at the nearest lower rank)."""
    last = rows.shape[1] - 1
    lower, upper = (rows.kthvalue(int(q * last) + 1, dim=1, keepdim=True).values for q in (low, high))
    return rows.clamp(lower, upper)


def _minmax(rows: Tensor) -> Tensor:
    """Each row from 0 to 1; a row of equal entries is 1 throughout, so that none of them loses to another."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return torch.where(high > low, (rows - low) / torch.where(high > low, high - low, 1.0), 1.0)
