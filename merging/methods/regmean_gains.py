from typing import Annotated

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.method import Choice, Lambda, Number, Paper, merge_method
from merging.methods.regmean import fitted


@merge_method(
    title="RegMean++ with learned gains",
    paper=Paper("AdaMerging: Adaptive Model Merging for Multi-Task Learning", "2310.02575", 2024),
    calibrated="learned",
    version=2,
    note="Ours: AdaMerging's coefficients on RegMean++'s parts, learned from the experts' own answers. Uses gradients.",
)
def regmean_gains(
    deltas: Tensor,
    weights: Tensor,
    *,
    inputs: Inputs,
    lambda_: Annotated[float, Lambda(screen=1.25)],
    a: Annotated[
        float, Number(0.0, 1.0, 0.01, 0.9, "Off-diagonal", "Lower trusts links between inputs less.", screen=1.0)
    ],
    ridge: Annotated[float, Number(0.0, 1.0, 0.001, 0.01, "Ridge", "Pulls towards the mean.")],
    embed: Annotated[
        str, Choice(("mean", "tied"), "Embedding", "Tied fits each row to how it is used.", screen="tied")
    ],
    norms: Annotated[str, Choice(("mean", "lot"), "Norms", "Lot weighs a scale by what it meets.")],
) -> Tensor:
    """RegMean++ whose parts are as strong as brings the merge's answers nearest to those of the experts.

    RegMean's solution is a sum over the experts, `sum_t P_t`; this is `lambda sum_t P_t diag(g_t)`, with a gain for
    each expert and each column of the tensor. They were learned by gradient steps on the divergence of the merge from
    each expert on that expert's own answers (`eval/calibrating/gains.py`) and belong to the settings of that run.
    Without gains, RegMean++.
    """
    if inputs.gains is None:
        return lambda_ * fitted(deltas, weights, inputs, a, ridge, embed, norms)
    merged = torch.zeros_like(deltas[0])
    for t, gain in enumerate(inputs.gains.to(deltas)):
        alone = torch.zeros_like(deltas)
        alone[t] = deltas[t]
        merged += fitted(alone, weights, inputs, a, ridge, embed, norms) * gain
    return lambda_ * merged
