from typing import Annotated

import torch
from torch import Tensor

from merging.arcs import karcher_direction
from merging.method import Number, Paper, merge_method


@merge_method(
    title="Karcher mean",
    paper=Paper("Functionality-Oriented LLM Merging on the Fisher-Rao Manifold", "2603.04972", 2026),
    space="weights",
    uses_weight=False,
)
def karcher(
    models: Tensor,
    weights: Tensor,
    *,
    max_iter: Annotated[float, Number(0, 100, 1, 10, "Steps", "At most so many steps to the mean.", first=True)],
    tol: Annotated[float, Number(0.0, 0.1, 1e-5, 1e-5, "Tolerance", "Stops once a step is shorter than this.")],
) -> Tensor:
    """Finds the point on the sphere that lies nearest to all models, at their mean length.

    Riemannian mean of the flattened, normalised models (T, *shape) with equal weights, times the mean of their norms.
    A zero tensor has no direction but counts in the mean norm. The base takes part only if the recipe lists it.
    """
    flat = models.reshape(len(models), -1)
    norms = flat.norm(dim=1)
    present = norms > 0
    if not present.any():
        return torch.zeros_like(models[0])
    directions = flat[present] / norms[present].unsqueeze(1)
    return (norms.mean() * karcher_direction(directions, int(max_iter), tol)).view(models.shape[1:])
