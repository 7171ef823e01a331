from typing import Annotated

from torch import Tensor

from merging.masks import drop_extremes_each
from merging.method import Lambda, Switch, merge_method
from merging.methods.breadcrumbs import DENSITY, GAMMA, PAPER, RESCALE
from merging.ops import weighted_sum


@merge_method(title="Breadcrumbs TIES", paper=PAPER)
def breadcrumbs_ties(
    deltas: Tensor,
    weights: Tensor,
    *,
    density: Annotated[Tensor, DENSITY],
    gamma: Annotated[Tensor, GAMMA],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(False, "Normalize", "Mean instead of sum of those that agree.")],
) -> Tensor:
    """Drops the largest and the smallest entries of each delta, then merges those that agree in sign.

    The mask of `breadcrumbs` takes the place of TIES' trimming; the election as in `ties`.
    """
    kept = drop_extremes_each(deltas, density, gamma, rescale=rescale)
    return lambda_ * weighted_sum(kept, weights, normalize=normalize, elect=True)
