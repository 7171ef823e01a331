"""Merges that weigh each input direction by a covariance: `D = (sum w_t D_t C_t)(sum w_t C_t)^+`.

What C_t is makes the method: D_t^T D_t / ||D_t||^2 is WUDI's optimum, activations X_t^T X_t are RegMean, the identity
is the mean.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from merging.decompose import eigen
from merging.ops import column, weighted_sum

Gram = Callable[[int], Tensor]  # of expert t, one at a time, so that never two are held


def covariance_merge(
    deltas: Tensor,
    gram: Gram,
    weights: Tensor,
    start: Tensor,
    cut: Callable[[Tensor], Tensor],
) -> Tensor:
    """`start (I - E f E^T) + N E diag(f / l) E^T` with `sum |w_t| C_t = E diag(l) E^T` and `N = sum w_t D_t C_t`.

    deltas (T, m, n); gram(t) gives C_t (n, n) in float64; cut(l) gives the share f (n,), 0 to 1, of the optimum taken
    in each eigendirection (l descending); where f is 0 `start` (m, n) stays. A negative weight asks for the opposite of
    that delta, with the importance of its magnitude.
    """
    products, total = _sums(deltas, gram, weights)
    return _optimum(products, total, start.double(), cut).to(deltas.dtype)


def _optimum(products: Tensor, total: Tensor, start: Tensor, cut: Callable[[Tensor], Tensor]) -> Tensor:
    """The same of what `_sums` gives."""
    values, vectors = eigen(total)
    real = values > values[0] * len(values) * torch.finfo(torch.float64).eps
    share = torch.where(real, cut(values), 0.0)
    gain = share / torch.where(real, values, 1.0)
    return start - ((start @ vectors) * share) @ vectors.T + ((products @ vectors) * gain) @ vectors.T


def least_squares(deltas: Tensor, gram: Gram, weights: Tensor, *, apart: bool = False) -> Tensor:
    """`(sum w_t D_t C_t)(sum |w_t| C_t)^-1`, and the weighted mean in directions that no C_t has.

    Shapes as in `covariance_merge`, whose way is taken where the sum is singular: a Cholesky factor costs a tenth.
    apart: the T parts of the first sum, each by itself.
    """
    products, total = _sums(deltas, gram, weights, apart)
    factor, failed = torch.linalg.cholesky_ex(total)
    pivots = factor.diagonal()
    if failed or pivots.min() < 1e-6 * pivots.max():  # a condition beyond 1e12
        found = _optimum(products, total, mean_delta(deltas, weights, apart=apart).double(), torch.ones_like)
    else:
        found = torch.cholesky_solve(products.flatten(0, -2).T, factor).T.view(products.shape)
    return found.to(deltas.dtype)


def row_least_squares(
    deltas: Tensor, counts: Tensor, gram: Gram | None, weights: Tensor, *, apart: bool = False
) -> Tensor:
    """Rows that are looked up: `e_i = (sum w_t e_ti (C_t + c_ti I))(sum |w_t| (C_t + c_ti I))^-1`, row by row.

    deltas (T, rows, n); counts (T, rows) how often each is looked up. `gram` gives C_t where the rows are also the
    head, which reads the last hidden state; then c_ti is the share of row i in expert t's mean times the mean diagonal
    of C_t. Without it, c_ti is the count. Rows that nobody looked up take the weighted mean. One eigendecomposition
    serves all rows, since c_ti only shifts the eigenvalues. apart: as in `least_squares`.
    """
    n, sizes = deltas.shape[2], weights.abs().double()
    mean = mean_delta(deltas, weights, apart=apart).double()
    shift = counts.double()
    if gram is not None:
        level = torch.stack([gram(t).diagonal().mean() for t in range(len(deltas))])
        usual = shift.mean(1)
        shift = shift * torch.where(usual > 0, level / usual.clamp(min=1e-300), 0.0)[:, None]
    products = torch.zeros_like(mean)
    for t, (weight, looked_up) in enumerate(zip(weights.double(), shift, strict=True)):
        (products[t] if apart else products).add_(deltas[t] * (weight * looked_up)[:, None])
    whole = (sizes @ shift)[:, None]
    if gram is None:
        return torch.where(whole > 0, products / torch.where(whole > 0, whole, 1.0), mean).to(deltas.dtype)
    more, total = _sums(deltas, gram, weights, apart)
    values, vectors = eigen(total)
    strength = values.clamp(min=0) + whole
    real = strength > strength.max() * n * torch.finfo(torch.float64).eps
    inside = torch.where(real, ((products + more) @ vectors) / torch.where(real, strength, 1.0), mean @ vectors)
    return (inside @ vectors.T).to(deltas.dtype)


def mean_delta(deltas: Tensor, weights: Tensor, *, apart: bool = False) -> Tensor:
    """The weighted mean; a negative weight takes its delta away. apart: what each delta adds to it."""
    whole = column(weights, deltas) * deltas if apart else weighted_sum(deltas, weights, normalize=False)
    return whole / weights.abs().sum()


def _sums(deltas: Tensor, gram: Gram, weights: Tensor, apart: bool = False) -> tuple[Tensor, Tensor]:
    """`sum w_t D_t C_t`, or its parts (T, m, n), and `sum |w_t| C_t`, in float64."""
    n = deltas.shape[2]
    total = torch.zeros(n, n, dtype=torch.float64, device=deltas.device)
    products = torch.zeros(deltas.shape[0 if apart else 1 :], dtype=torch.float64, device=deltas.device)
    for t, weight in enumerate(weights.tolist()):
        c = gram(t)
        (products[t] if apart else products).addmm_(deltas[t].double(), c, alpha=weight)
        total.add_(c, alpha=abs(weight))
    return products, total
