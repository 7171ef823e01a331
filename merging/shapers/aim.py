from typing import Annotated

from torch import Tensor

from merging.calibration import Inputs
from merging.method import Number, Paper, Switch
from merging.shaper import shaper
from merging.spectral import Factors


@shaper(
    title="AIM",
    paper=Paper("Activation-Informed Merging of Large Language Models", "2502.02421", 2025),
    sees="matrix",
    calibrated=True,
)
def aim(
    merged: Tensor,
    experts: Factors,
    *,
    inputs: Inputs,
    omega: Annotated[float, Number(0.0, 1.0, 0.05, 0.4, "AIM ω", "What is left where the base reads most.")],
    robust: Annotated[bool, Switch(False, "AIM past outliers", "Holds sizes against the 99th percentile.")],
) -> Tensor:
    """Holds the merge back in the columns that the base uses most.

    `D[:, j] *= 1 - (1 - omega) a_j`, a_j the mean of |x_j| in the base, over all texts of the calibration alike,
    divided by the largest; few massive inputs make all others small, which `robust` avoids. Matrices without measured
    inputs stay.
    """
    if inputs.base_columns is None:
        return merged
    sizes = inputs.base_columns()[:, 0].mean(0).to(merged)
    most = sizes.quantile(0.99) if robust else sizes.max()
    if not most > 0:
        return merged
    left = 1 - (1 - omega) * (sizes / most).clamp(max=1.0)
    return merged * (left[:, None] if inputs.transposed else left)
