from typing import Annotated

from torch import Tensor

from merging.blocks import whole
from merging.masks import Trim
from merging.method import Lambda, Switch, merge_method
from merging.methods.breadcrumbs import DENSITY, GAMMA, PAPER, RESCALE, trim
from merging.ops import elected_sum


@merge_method(title="Breadcrumbs TIES", paper=PAPER, blocks="flat", measure=trim, magnitudes=True)
def breadcrumbs_ties(
    deltas: Tensor,
    weights: Tensor,
    *,
    density: Annotated[Tensor, DENSITY],
    gamma: Annotated[Tensor, GAMMA],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(False, "Normalize", "Mean instead of sum of those that agree.")],
    known: Trim | None = None,
) -> Tensor:
    """Drops the largest and the smallest entries of each delta, then merges those that agree in sign.

    The mask of `breadcrumbs` takes the place of TIES' trimming; the election as in `ties`.
    """
    known = known or trim(whole(deltas), density=density, gamma=gamma, rescale=rescale)
    return lambda_ * elected_sum(known(deltas), weights, normalize=normalize)
