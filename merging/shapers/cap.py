from typing import Annotated

import torch
from torch import Tensor

from merging.decompose import SVD
from merging.method import Number, Paper
from merging.shaper import shaper
from merging.spectral import Factors


@shaper(
    title="Cap",
    paper=Paper("Subspace-Boosted Model Merging", "2506.16506", 2025),
    sees="spectrum",
)
def cap(
    merged: SVD,
    experts: Factors,
    *,
    quantile: Annotated[float, Number(0.0, 1.0, 0.05, 0.9, "Cap quantile", "Stronger directions are cut to this.")],
) -> Tensor:
    """Cuts the strongest directions of the merge down to a quantile of its singular values.

    Linear between neighbours, over the directions above rounding noise; 1 changes nothing. Free of scale. Ours, the
    mirror of `floor`.
    """
    return merged.s.clamp(max=float(torch.quantile(merged.s.double(), quantile)))
