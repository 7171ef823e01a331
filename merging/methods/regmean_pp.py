from typing import Annotated

from torch import Tensor

from merging.calibration import Inputs
from merging.method import Lambda, Number, Paper, merge_method
from merging.methods.regmean import EMBED, NORMS, RIDGE, fitted


@merge_method(
    title="RegMean++",
    paper=Paper("RegMean++: Enhancing Effectiveness and Generalization of Regression Mean", "2508.03121", 2025),
    calibrated="merged",
)
def regmean_pp(
    deltas: Tensor,
    weights: Tensor,
    *,
    inputs: Inputs,
    lambda_: Annotated[float, Lambda(screen=1.5)],
    a: Annotated[
        float, Number(0.0, 1.0, 0.01, 0.9, "Off-diagonal", "Lower trusts links between inputs less.", screen=0.99)
    ],
    ridge: Annotated[float, RIDGE],
    embed: Annotated[str, EMBED],
    norms: Annotated[str, NORMS],
) -> Tensor:
    """RegMean on the inputs that a layer meets once the layers before it are merged.

    The same least squares; the inputs of a layer were measured while each expert's text ran through the merged layers
    before it (`eval/calibrating/calibrate.py`). They belong to the settings of that run: other settings here are near
    to it, and a new calibration makes them exact.
    """
    return lambda_ * fitted(deltas, weights, inputs, a, ridge, embed, norms)
