from typing import Annotated

import torch
from torch import Tensor

from merging.decompose import SVD
from merging.method import Number, Paper
from merging.shaper import shaper
from merging.spectral import Factors


@shaper(
    title="STAR",
    paper=Paper("STAR: Spectral Truncation and Rescale", "2502.10339", 2025),
    sees="expert",
)
def star(
    delta: SVD,
    experts: Factors,
    *,
    eta: Annotated[float, Number(0.0, 100.0, 5.0, 40.0, "STAR η %", "Share of the singular values kept.")],
) -> Tensor:
    """Cuts each expert to its strongest directions and scales them up to the sum of all.

    The fewest leading singular values whose sum reaches eta % of the nuclear norm, at least one, times total over
    kept. That keeps the nuclear norm, and so makes the largest value larger. Free of scale.
    """
    sums = delta.s.double().cumsum(0)
    kept = min(int((sums < eta / 100 * sums[-1] * (1 - 1e-12)).sum()) + 1, len(sums))
    scaled = delta.s * float(sums[-1] / sums[kept - 1])
    return torch.cat([scaled[:kept], torch.zeros_like(scaled[kept:])])
