from typing import Annotated

from torch import Tensor

from merging.method import Lambda, Paper, Switch, merge_method
from merging.methods.ties import DENSITY, ties
from merging.methods.tsv_m import EXCLUDE
from merging.spaces import knots as knots_space
from merging.spectral import Factors, Fold


@merge_method(
    title="KnOTS-TIES",
    paper=Paper("Model Merging with SVD to Tie the KnOTS", "2410.19735", 2024),
    space="factors",
)
def knots(
    factors: Factors,
    weights: Tensor,
    *,
    density: Annotated[Tensor, DENSITY],
    lambda_: Annotated[float, Lambda()],
    normalize: Annotated[bool, Switch(True, "Normalize", "Mean instead of sum of those that agree.")],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
) -> Tensor | Fold:
    """Puts the experts into one shared basis and merges them there with TIES.

    `[D_1 .. D_T] = U S [V_1^T .. V_T^T]`, TIES on the V_t^T (R x n), back by U S; the same as `ties` with
    `space: knots`. Other methods in that basis: that same recipe key.
    """
    space = knots_space(factors)
    settings = {"density": density, "lambda_": lambda_, "rescale": False, "normalize": normalize}
    return space.back(ties(space.factors.deltas, weights, **settings))
