from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from merging.blocks import whole
from merging.masks import Pruned, drop_by_rank, prune
from merging.method import Lambda, Switch, merge_method
from merging.methods.della_linear import CONVENTION, DENSITY, EPSILON, PAPER, RESCALE
from merging.ops import elected_sum


@merge_method(title="DELLA", paper=PAPER, random=True, blocks="rows", measure=prune, version=2)
def della(
    deltas: Tensor,
    weights: Tensor,
    *,
    bits: Callable[..., Tensor],
    density: Annotated[Tensor, DENSITY],
    epsilon: Annotated[Tensor, EPSILON],
    lambda_: Annotated[float, Lambda()],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(True, "Normalize", "Mean instead of sum of those that agree.")],
    convention: Annotated[str, CONVENTION],
    known: Pruned | None = None,
) -> Tensor:
    """Drops small entries of each delta more often than large ones, then merges those that agree in sign.

    The mask of `della_linear` takes the place of TIES' trimming; conventions as there and in `ties`.
    """
    if known is None:
        knobs = {"density": density, "epsilon": epsilon, "rescale": rescale, "convention": convention}
        known = prune(whole(deltas, bits, rows=True), **knobs)
    divide = rescale and convention == "paper"
    kept = known(deltas, lambda x: drop_by_rank(x, density, epsilon, bits, divide=divide))
    return lambda_ * elected_sum(kept, weights, normalize=normalize)
