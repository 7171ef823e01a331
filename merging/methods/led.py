from typing import Annotated

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.covariance import mean_delta
from merging.method import Lambda, Number, Paper, merge_method
from merging.ops import weighted_sum


@merge_method(
    title="LED-Merging",
    paper=Paper(
        "LED-Merging: Mitigating Safety-Utility Conflicts in Model Merging with Location-Election-Disjoint",
        "2502.16770",
        2025,
    ),
    calibrated="gradients",
)
def led(
    deltas: Tensor,
    weights: Tensor,
    *,
    inputs: Inputs,
    lambda_: Annotated[float, Lambda(screen=0.9)],
    r: Annotated[
        float, Number(0.0, 1.0, 0.01, 0.4, "Elected share r", "More keeps more, and clashes more.",
                      per_expert=True, first=True),
    ],
) -> Tensor:  # fmt: skip
    """Keeps of each delta what matters to base and expert on the expert's own text, and to no other expert.

    Location: the score of a weight is the mean over texts of `|w dL/dw|` (SNIP). Election: the `int(r n)` highest of a
    tensor both in the base and in the expert. Disjoint: what another expert elects too is left to the base. Then
    `lambda sum w_t D_t mask_t`. The loss is that of the whole text, prompts too, unlike the authors'.
    """
    if inputs.saliency is None:
        return lambda_ * mean_delta(deltas, weights)
    elected = []
    for t, share in enumerate(r):  # pyright: ignore[reportArgumentType]  a tensor (T,), one value an expert
        base, own = inputs.saliency(t)
        elected.append(_highest(base, float(share)) & _highest(own, float(share)))
    alone = torch.stack(elected)
    alone &= alone.sum(0) == 1
    return lambda_ * weighted_sum(deltas * alone, weights, normalize=False)


def _highest(score: Tensor, share: float) -> Tensor:
    """Where the `int(share n)` highest lie; among equal ones the lowest index."""
    order = score.flatten().argsort(descending=True, stable=True)[: int(share * score.numel())]
    return (
        torch.zeros(score.numel(), dtype=torch.bool, device=score.device).index_fill(0, order, True).view(score.shape)
    )
