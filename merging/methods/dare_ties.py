from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from merging.method import Lambda, Switch, merge_method
from merging.methods.dare_linear import CONVENTION, DENSITY, PAPER, RESCALE
from merging.ops import drop_each, weighted_sum


@merge_method(title="DARE TIES", paper=PAPER, random=True)
def dare_ties(
    deltas: Tensor,
    weights: Tensor,
    *,
    bits: Callable[[int], Tensor],
    density: Annotated[Tensor, DENSITY],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(False, "Normalize", "Mean instead of sum of those that agree.")],
    convention: Annotated[str, CONVENTION],
) -> Tensor:
    """Drops entries of each delta at random, then merges those that agree with the elected sign.

    DARE's mask takes the place of TIES' trimming; conventions as in `dare_linear` and `ties`.
    """
    kept = drop_each(deltas, density, bits, rescale=rescale, paper=convention == "paper")
    return lambda_ * weighted_sum(kept, weights, normalize=normalize, elect=True)
