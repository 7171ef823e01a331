from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from merging.blocks import whole
from merging.masks import Pruned, dare_factors, drop_at_random
from merging.method import Lambda, Switch, merge_method
from merging.methods.dare_linear import CONVENTION, DENSITY, PAPER, RESCALE
from merging.ops import elected_sum


@merge_method(title="DARE TIES", paper=PAPER, random=True, blocks="flat", measure=dare_factors, version=2)
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
    known: Pruned | None = None,
) -> Tensor:
    """Drops entries of each delta at random, then merges those that agree with the elected sign.

    DARE's mask takes the place of TIES' trimming; conventions as in `dare_linear` and `ties`.
    """
    known = known or dare_factors(whole(deltas, bits), density=density, rescale=rescale, convention=convention)
    kept = known(deltas, lambda x: drop_at_random(x, density.tolist(), bits))
    return lambda_ * elected_sum(kept, weights, normalize=normalize)
