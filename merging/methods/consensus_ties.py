from typing import Annotated

from torch import Tensor

from merging.masks import agreement_mask
from merging.method import Lambda, Switch, merge_method
from merging.methods.consensus_ta import LAM, PAPER, K
from merging.methods.ties import DENSITY, ties
from merging.ops import column


@merge_method(title="Consensus TIES", paper=PAPER, experts=(2, 64))
def consensus_ties(
    deltas: Tensor,
    weights: Tensor,
    *,
    density: Annotated[Tensor, DENSITY],
    lam: Annotated[Tensor, LAM],
    k: Annotated[float, K],
    lambda_: Annotated[float, Lambda(screen=0.3)],
    normalize: Annotated[bool, Switch(False, "Normalize", "Mean instead of sum of those that agree.")],
) -> Tensor:
    """Merges by TIES, then keeps only the entries that several experts use.

    The masks of `consensus_ta` against the TIES merge instead of the sum. deltas (T, *shape), density and lam (T,).
    """
    merged = ties(deltas, weights, density=density, lambda_=1.0, rescale=False, normalize=normalize)
    return lambda_ * merged * agreement_mask(deltas * column(weights, deltas), merged, lam, k)
