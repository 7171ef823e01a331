from typing import Annotated

import torch
from torch import Tensor

from merging.method import Choice, Number, Paper, merge_method
from merging.ops import column, elect_sign, largest


@merge_method(
    title="SCE", paper=Paper("FuseChat: Knowledge Fusion of Chat Models", "2408.07990", 2024), uses_weight=False
)
def sce(
    deltas: Tensor,
    weights: Tensor,
    *,
    select_topk: Annotated[
        float, Number(0.0, 1.0, 0.05, 1.0, "Selected", "Share of entries kept, by their variance.", first=True)
    ],
    convention: Annotated[
        str, Choice(("mergekit", "paper"), "Convention", "Tiny deltas weigh alike, or by energy.", screen="paper")
    ],
) -> Tensor:
    """Keeps the entries where experts differ most, weighs each expert by its energy, and drops minority signs.

    Select the `int(select_topk * n)` entries of largest variance over the experts (n: those that vary; at 1 all stay),
    calculate `c_t` = mean square of what is left, erase signs against the sum: `sum c_t D_t / sum c_t` over those that
    agree. `convention: mergekit` takes equal weights where all energies sum to less than 1e-6. deltas (T, *shape).
    """
    if select_topk < 1:
        variance = deltas.var(0, correction=0)
        deltas = torch.where(largest(variance, int(select_topk * int((variance > 0).sum()))), deltas, 0.0)
    energy = deltas.square().flatten(1).mean(1) if deltas.dim() > 1 else deltas.square()
    floor = 1e-6 if convention == "mergekit" else 0.0
    share = energy / energy.sum() if energy.sum() > floor else torch.full_like(energy, 1 / len(energy))
    agrees = column(share, deltas) * (torch.sign(deltas) == elect_sign(deltas))
    return (agrees * deltas).sum(0) / agrees.sum(0).clamp(min=1e-6)
