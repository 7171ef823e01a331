import math
from typing import Annotated

import torch
from torch import Tensor

from merging.covariance import covariance_merge
from merging.method import Choice, Lambda, Number, Paper, Switch, merge_method
from merging.methods.tsv_m import EXCLUDE
from merging.spaces import adapters_core
from merging.spectral import Factors, Fold


@merge_method(
    title="SWUDI (WUDI in closed form)",
    paper=Paper("SWUDI", "2606.07289", 2026),
    space="factors",
)
def swudi(
    factors: Factors,
    weights: Tensor,
    *,
    ratio: Annotated[
        float, Number(0.0, 1.0, 0.05, 0.85, "Kept share", "Input directions that are solved.", first=True)
    ],
    tau: Annotated[float, Number(0.0, 3000.0, 10.0, 300.0, "Sharpness τ", "Lower leaves weak directions alone.")],
    init: Annotated[str, Choice(("mean", "sum", "zero"), "Start from", "What stays in directions not solved.")],
    cov_raw: Annotated[bool, Switch(False, "Raw covariance", "Larger experts count more.")],
    lambda_: Annotated[float, Lambda(screen=0.4)],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
) -> Tensor | Fold:
    """Finds the delta that acts on each expert's own input directions as that expert does.

    The exact minimum of WUDI's `sum_t ||(D - D_t) D_t^T||^2 / ||D_t||^2` (2503.08099), in the `ceil(ratio n)`
    strongest eigendirections of `C = sum D_t^T D_t / ||D_t||^2`, each taken to the share `1 - exp(-tau l)`; l is
    free of scale (trace C = T). It acts on the input side only. `cov_raw` leaves out the division by the norms (our
    reading of 2604.01329) and divides all by their mean square, so that tau means the same. Start: the mean (ours;
    the authors take the sum). Weights are the importance of an expert, not its length. The result is like a sum:
    the scale that fits falls with the overlap of the experts; 0.4 is what the page proposes, about 1 / T.
    """
    space = adapters_core(factors)
    deltas = space.factors.deltas
    squares = deltas.double().square().sum((1, 2))
    if not squares.any():
        return space.back(torch.zeros_like(deltas[0]))
    norms = squares.mean().expand_as(squares) if cov_raw else torch.where(squares > 0, squares, 1.0)

    def gram(t: int) -> Tensor:
        delta = deltas[t].double()
        return delta.T @ delta / norms[t]

    starts = {"zero": torch.zeros_like(deltas[0]), "sum": torch.tensordot(weights, deltas, 1)}
    starts["mean"] = starts["sum"] / weights.abs().sum()
    solved = math.ceil(ratio * factors.deltas.shape[2] - 1e-9)

    def cut(values: Tensor) -> Tensor:
        strongest = torch.arange(len(values), device=values.device) < solved
        return torch.where(strongest, -torch.expm1(-tau * values.clamp(min=0)), 0.0)

    return space.back(lambda_ * covariance_merge(deltas, gram, weights, starts[init], cut))
