from typing import Annotated

from torch import Tensor

from merging.decompose import SVD
from merging.method import Number, Paper
from merging.shaper import shaper
from merging.spectral import Factors


@shaper(
    title="Floor (Subspace Boosting)",
    paper=Paper("Subspace-Boosted Model Merging", "2506.16506", 2025),
    sees="spectrum",
)
def floor(
    merged: SVD,
    experts: Factors,
    *,
    beta: Annotated[float, Number(0.0, 1.0, 0.01, 0.01, "Floor β", "Lower lifts weak directions further.")],
) -> Tensor:
    """Raises weak directions of the merge to the level where the strong ones reach a share of the total.

    Singular values below the first whose cumulated share reaches beta are raised to it; at 0 all equal the largest.
    The paper takes 0 to 0.02. Free of scale. Reconstructed from the abstract.
    """
    sums = merged.s.double().cumsum(0)
    first = min(int((sums < beta * sums[-1] * (1 - 1e-12)).sum()), len(sums) - 1)
    return merged.s.clamp(min=float(merged.s[first]))
