from typing import Annotated

import torch
from torch import Tensor

from merging.method import Number, Paper, merge_method


@merge_method(
    title="NearSwap",
    paper=Paper("Arcee's MergeKit", "2403.13257", 2024),
    space="weights",
    experts=(2, 2),
    uses_weight=False,
    base_first=True,
)
def nearswap(
    models: Tensor,
    weights: Tensor,
    *,
    t: Annotated[
        float,
        Number(
            0.0, 0.02, 0.0005, 0.001, "Nearness t", "Entries closer than this are swapped.", strict=False, first=True
        ),
    ],
) -> Tensor:
    """Takes the other model's entries where it lies near the base, and less of them the farther away it is.

    `W_0 + clip(t / |W_1 - W_0|, 0, 1) (W_1 - W_0)` over (2, *shape), the base or first model W_0: no entry moves by
    more than t. mergekit requires `t`; an omitted one means 0.001 here. Defined by alchemonaut's QuartetAnemoi-70B.
    """
    gap = models[1] - models[0]
    share = torch.where(gap == 0, 0.0, (t / gap.abs().clamp(min=1e-38)).clamp(0, 1))
    return (1 - share) * models[0] + share * models[1]
