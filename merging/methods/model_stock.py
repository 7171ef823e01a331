from typing import Annotated

import torch
from torch import Tensor

from merging.arcs import unit
from merging.method import Paper, Switch, merge_method


@merge_method(
    title="Model Stock",
    paper=Paper("Model Stock: All we need is just a few fine-tuned models", "2403.19522", 2024),
    experts=(2, 64),
    uses_weight=False,
)
def model_stock(
    deltas: Tensor,
    weights: Tensor,
    *,
    filter_wise: Annotated[bool, Switch(False, "Row by row", "Measure the angle in every row by itself.")],
    clamp: Annotated[bool, Switch(False, "Clamp", "Never beyond the base or the mean.")],
) -> Tensor:
    """Moves from the base towards the experts' mean as far as their deltas point the same way.

    `t = N c / (1 + (N - 1) c)` times the mean of the deltas (N, *shape), c the mean cosine of their pairs (eq. 5). A
    negative c moves away from the mean unless `clamp`. mergekit's floor of 1e-6 under the product of two norms
    is left out: it sends small tensors back to the base. At the pole c = -1 / (N - 1) the deltas cancel: t is 0.
    """
    n = len(deltas)
    rows = deltas.reshape(n, *deltas.shape[1:-1], -1) if filter_wise and deltas.dim() > 2 else deltas.reshape(n, -1)
    directions = unit(rows)
    both = directions.sum(0).square().sum(-1, keepdim=True) - directions.square().sum((0, -1)).unsqueeze(-1)
    cosine = both / (n * (n - 1))
    below = 1 + (n - 1) * cosine
    t = torch.where(below > 1e-6, n * cosine / torch.where(below > 1e-6, below, 1.0), 0.0)
    return ((t.clamp(0, 1) if clamp else t) * rows.mean(0)).view(deltas.shape[1:])
