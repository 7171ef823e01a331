from typing import Annotated

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.method import Lambda, Number, Paper, merge_method
from merging.methods.regmean import EMBED, NORMS, RIDGE, fitted


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
    ridge: Annotated[float, RIDGE],
    embed: Annotated[str, EMBED],
    norms: Annotated[str, NORMS],
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
    parts = fitted(deltas, weights, inputs, a, ridge, embed, norms, apart=True)
    for part, gain in zip(parts, inputs.gains.to(deltas), strict=True):
        merged += part * gain
    return lambda_ * merged
