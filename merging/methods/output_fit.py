from typing import Annotated

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.covariance import mean_delta
from merging.method import Choice, Lambda, Number, Paper, Switch, merge_method
from merging.ops import weighted_sum


@merge_method(
    title="Output fit (OSP)",
    paper=Paper("OSP", "2605.29101", 2026),
    calibrated="own",
)
def output_fit(
    deltas: Tensor,
    weights: Tensor,
    *,
    inputs: Inputs,
    lambda_: Annotated[float, Lambda(screen=0.7)],
    scope: Annotated[str, Choice(("block", "matrix", "model"), "One fit for", "Where the same weights hold.")],
    ridge: Annotated[float, Number(0.0, 0.1, 0.001, 0.001, "Ridge", "Steadies the fit of experts that are alike.")],
    positive: Annotated[bool, Switch(False, "No negative weights", "Experts are added, never taken away.")],
) -> Tensor:
    """Finds the experts' weights with which the merge keeps most of what each expert puts out on its own text.

    `w* = (sum_t g_t M_t / M_t[t,t])^-1 (sum_t g_t M_t[:,t] / M_t[t,t])` with the measured products
    `M_t[s,u] = <X_t D_s^T, X_t D_u^T>`; the recipe's weights are the importance g_t. Reconstructed from the abstract.
    An expert without output in the scope has no say. Tensors without measured inputs take the mean.
    """
    if inputs.products is None:
        return lambda_ * mean_delta(deltas, weights)
    w = fit_weights(inputs.products(scope), weights.double(), ridge, positive)  # pyright: ignore[reportArgumentType]
    return lambda_ * weighted_sum(deltas, w.to(weights), normalize=False)


def fit_weights(products: Tensor, importance: Tensor, ridge: float, positive: bool) -> Tensor:
    """(T,) float64 of products (T, T, T) as `Inputs` describes them."""
    own = products.diagonal(dim1=0, dim2=1).diagonal()  # M[t, t, t]
    says = torch.where(own > 0, importance / torch.where(own > 0, own, 1.0), 0.0)
    left = torch.einsum("t,tsu->su", says, products)
    right = torch.einsum("t,tst->s", says, products)
    left = left + torch.diag(ridge * left.diagonal().mean().expand(len(left)))
    w = torch.linalg.pinv(left, hermitian=True) @ right
    kept = torch.ones_like(w, dtype=torch.bool)
    while positive and (w < 0).any():  # the most negative one leaves, the others are fitted again
        kept[w.argmin()] = False
        some = kept.nonzero()[:, 0]
        w = torch.zeros_like(w)
        w[some] = torch.linalg.pinv(left[some][:, some], hermitian=True) @ right[some]
    return w
