from typing import Annotated

import torch
from torch import Tensor

from merging.method import Lambda, Number, Paper, Switch, merge_method
from merging.ops import keep_largest, weighted_sum


@merge_method(title="TIES", paper=Paper("TIES-Merging: Resolving Interference When Merging Models", "2306.01708", 2023))
def ties(
    deltas: Tensor,
    weights: Tensor,
    *,
    density: Annotated[
        Tensor,
        Number(
            0.0, 1.0, 0.05, 1.0, "Density", "Share of largest entries kept.", screen=0.2, per_expert=True, first=True
        ),
    ],
    lambda_: Annotated[float, Lambda()],
    normalize: Annotated[bool, Switch(True, "Normalize", "Mean instead of sum of those that agree.")],
) -> Tensor:
    """Keeps each delta's largest entries, elects a sign per weight, and merges only those that agree.

    Per tensor, as mergekit: `int(density * n)` entries stay (ties: lowest index first), the sign of `sum w_t D_t`
    wins (a sum of 0 elects +), and agreeing entries are averaged by weight. deltas (T, *shape), density (T,).
    """
    trimmed = torch.stack([keep_largest(delta, float(share)) for delta, share in zip(deltas, density, strict=True)])
    return lambda_ * weighted_sum(trimmed, weights, normalize=normalize, elect=True)
