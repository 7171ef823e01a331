from typing import Annotated

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.covariance import mean_delta
from merging.method import Lambda, Paper, merge_method


@merge_method(
    title="Fisher merging",
    paper=Paper("Merging Models with Fisher-Weighted Averaging", "2111.09832", 2022),
    calibrated="gradients",
)
def fisher(deltas: Tensor, weights: Tensor, *, inputs: Inputs, lambda_: Annotated[float, Lambda()]) -> Tensor:
    """Averages each weight by how much each expert's own text depends on it.

    `lambda sum w_t F_t D_t / sum |w_t| F_t` with the diagonal of the empirical Fisher information: F_t is the mean over
    expert t's texts of the squared gradient of its loss a token, over the mean of F_t in the whole model, so that no
    expert counts more for steeper losses (the authors divide by its norm). A floor of 1e-6 gives the mean where no text
    depends on a weight. Of a head that is tied the embedding's gradient is the sum of both uses.
    """
    if inputs.fisher is None:
        return lambda_ * mean_delta(deltas, weights)
    total, merged = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for t, weight in enumerate(weights):
        information = inputs.fisher(t).to(deltas.dtype) + 1e-6
        total += weight.abs() * information
        merged += weight * information * deltas[t]
    return lambda_ * merged / total
