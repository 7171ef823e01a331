from typing import Annotated

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.covariance import least_squares, mean_delta, row_least_squares
from merging.method import Choice, Lambda, Number, Paper, merge_method

RIDGE = Number(0.0, 1.0, 0.001, 0.01, "Ridge", "Pulls towards the mean.")
EMBED = Choice(("mean", "tied"), "Embedding", "Tied fits each row to how it is used.", screen="tied")
NORMS = Choice(("mean", "lot"), "Norms", "Lot weighs a scale by what it meets.")


@merge_method(
    title="RegMean",
    paper=Paper("Dataless Knowledge Fusion by Merging Weights of Language Models", "2212.09849", 2023),
    calibrated="own",
)
def regmean(
    deltas: Tensor,
    weights: Tensor,
    *,
    inputs: Inputs,
    lambda_: Annotated[float, Lambda(screen=1.3)],
    a: Annotated[float, Number(0.0, 1.0, 0.01, 0.95, "Off-diagonal", "Lower trusts links between inputs less.")],
    ridge: Annotated[float, RIDGE],
    embed: Annotated[str, EMBED],
    norms: Annotated[str, NORMS],
) -> Tensor:
    """Finds the matrix whose outputs on each expert's own inputs are nearest to what that expert puts out.

    `lambda (sum w_t D_t G_t)(sum w_t G_t)^-1` on deltas (T, m, n), with `G_t = a C_t + (1 - a) diag(C_t)` of the
    measured `C_t = X_t^T X_t` a token, plus `ridge` times its mean diagonal (so that much ridge gives a mean). The
    weight is an expert's importance, not its length. Tensors without measured inputs take the weighted mean. With
    `tied` an embedding's row is fitted as what it is: an input that occurs so often and, where the head is the same
    tensor, an output on the last hidden state (ours: `merging/covariance.py`, row_least_squares). With `norms: lot` the
    scale of a norm is `sum w_t q_t s_t / sum w_t q_t` entry by entry, q_t its mean squared input (LOT Merging,
    2505.23859, reconstructed from the abstract).
    """
    return lambda_ * fitted(deltas, weights, inputs, a, ridge, embed, norms)


def fitted(
    deltas: Tensor, weights: Tensor, inputs: Inputs, a: float, ridge: float, embed: str, norms: str, apart: bool = False
) -> Tensor:
    """RegMean's solution before its scale, a sum over the experts. apart: its parts (T, *shape)."""
    measured, counts = inputs.gram, inputs.counts

    def gram(t: int) -> Tensor:
        assert measured
        c = measured(t).to(torch.float64, copy=True)
        diagonal = c.diagonal().clone()
        c.mul_(a).diagonal().add_((1 - a) * diagonal + ridge * diagonal.mean())
        return c

    if inputs.squares is not None and norms == "lot":
        return row_least_squares(deltas[..., None], inputs.squares, None, weights, apart=apart)[..., 0]
    if counts is not None and embed == "tied":
        return row_least_squares(deltas, counts, measured and gram, weights, apart=apart)
    if counts is None and measured:
        found = least_squares(deltas.mT if inputs.transposed else deltas, gram, weights, apart=apart)
        return found.mT if inputs.transposed else found
    return mean_delta(deltas, weights, apart=apart)
