"""Merges that weigh each input direction by a covariance: `D = (sum w_t D_t C_t)(sum w_t C_t)^+`.

What C_t is makes the method: D_t^T D_t / ||D_t||^2 is WUDI's optimum, activations X_t^T X_t are RegMean, the identity
is the mean.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from merging.decompose import eigen


def covariance_merge(
    deltas: Tensor,
    gram: Callable[[int], Tensor],
    weights: Tensor,
    start: Tensor,
    cut: Callable[[Tensor], Tensor],
) -> Tensor:
    """`start (I - E f E^T) + N E diag(f / l) E^T` with `sum |w_t| C_t = E diag(l) E^T` and `N = sum w_t D_t C_t`.

    deltas (T, m, n); gram(t) gives C_t (n, n) in float64, one at a time, so that never two are held; cut(l) gives the
    share f (n,), 0 to 1, of the optimum taken in each eigendirection (l descending); where f is 0 `start` (m, n)
    stays. A negative weight asks for the opposite of that delta, with the importance of its magnitude.
    """
    n = deltas.shape[2]
    total = torch.zeros(n, n, dtype=torch.float64, device=deltas.device)
    products = torch.zeros(deltas.shape[1:], dtype=torch.float64, device=deltas.device)
    for t, weight in enumerate(weights.double()):
        c = weight * gram(t)
        products += deltas[t].double() @ c
        total += c * weight.sign()
    values, vectors = eigen(total)
    real = values > values[0] * n * torch.finfo(torch.float64).eps
    share = torch.where(real, cut(values), 0.0)
    gain = share / torch.where(real, values, 1.0)
    begun = start.double()
    merged = begun - ((begun @ vectors) * share) @ vectors.T + ((products @ vectors) * gain) @ vectors.T
    return merged.to(deltas.dtype)
