import torch
from torch import Tensor

from merging.decompose import SVD
from merging.method import Paper
from merging.shaper import shaper
from merging.spectral import Factors


@shaper(
    title="Mean (isotropic)",
    paper=Paper("No Task Left Behind: Isotropic Model Merging", "2502.04959", 2025),
    sees="spectrum",
)
def mean(merged: SVD, experts: Factors) -> Tensor:
    """Gives every direction of the merge the same strength, as Iso-C does with a sum.

    The mean of the singular values above rounding noise. Free of scale.
    """
    return torch.full_like(merged.s, float(merged.s.mean()))
