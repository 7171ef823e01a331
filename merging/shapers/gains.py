from typing import Annotated

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.decompose import SVD
from merging.method import Number, Paper
from merging.outputs import along
from merging.shaper import shaper
from merging.spectral import Factors, Fold


@shaper(
    title="Gains by output",
    paper=Paper("OSP", "2605.29101", 2026),
    sees="spectrum",
    calibrated=True,
)
def gains(
    merged: SVD,
    experts: Factors,
    *,
    inputs: Inputs,
    share: Annotated[float, Number(0.0, 1.0, 0.05, 1.0, "Gains share", "How far to go to the fitted strengths.")],
) -> Tensor:
    """Gives each direction of the merge the strength that keeps most of the experts' outputs.

    `d_r = sum_t b_tr / c_t / sum_t a_tr / c_t` with `a_tr = |X_t v_r|^2`, `b_tr = (X_t v_r) . (X_t D_t^T u_r)` and
    `c_t = |X_t D_t^T|^2` on measured inputs: as `output_fit` does for experts (ours). More output kept is no better
    score: on a prototype of Town it lost to the merge as it was. Directions that no text reaches stay.
    """
    if inputs.gram is None:
        return merged.s
    known = along(Fold(merged.u, merged.s, merged.v), experts.deltas, inputs)
    says = torch.where(known.whole > 0, 1 / known.whole.clamp(min=1e-300), 0.0)
    reached, wanted = says @ known.squares, says @ known.own
    there = reached > 1e-12 * reached.max()
    best = torch.where(there, wanted / torch.where(there, reached, 1.0), merged.s.double())
    return (merged.s + share * (best - merged.s)).to(merged.s)
