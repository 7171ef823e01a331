from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from merging.arcs import unit
from merging.blocks import Blocks, Everywhere, total, whole
from merging.method import Paper, Switch, merge_method
from merging.ops import weighted_sum


@dataclass(frozen=True)
class Position(Everywhere):
    """How far to go from the base to the mean."""

    t: float


def angle(blocks: Blocks, *, filter_wise: bool, **_: object) -> Position | None:
    """From the Gram matrix of the deltas; None where every row has an angle of its own."""
    if filter_wise and len(blocks.shape) > 1 and blocks.shape[0] > 1:
        return None
    gram = total(blocks, lambda a, b, x: x.flatten(1) @ x.flatten(1).T)
    norms = gram.diagonal().sqrt()
    products = torch.outer(norms, norms)
    directions = gram / products.masked_fill(products == 0, 1.0)
    return Position(float(_position(directions.sum() - directions.trace(), len(gram))))


@merge_method(
    title="Model Stock",
    paper=Paper("Model Stock: All we need is just a few fine-tuned models", "2403.19522", 2024),
    experts=(2, 64),
    uses_weight=False,
    blocks="rows",
    measure=angle,
    version=2,
)
def model_stock(
    deltas: Tensor,
    weights: Tensor,
    *,
    filter_wise: Annotated[bool, Switch(False, "Row by row", "Measure the angle in every row by itself.")],
    clamp: Annotated[bool, Switch(False, "Clamp", "Never beyond the base or the mean.")],
    known: Position | None = None,
) -> Tensor:
    """Moves from the base towards the experts' mean as far as their deltas point the same way.

    `t = N c / (1 + (N - 1) c)` times the mean of the deltas (N, *shape), c the mean cosine of their pairs (eq. 5). A
    negative c moves away from the mean unless `clamp`. mergekit's floor of 1e-6 under the product of two norms
    is left out: it sends small tensors back to the base. At the pole c = -1 / (N - 1) the deltas cancel: t is 0.
    """
    n = len(deltas)
    if filter_wise and deltas.dim() > 2:
        rows = deltas.reshape(n, *deltas.shape[1:-1], -1)
        directions = unit(rows)
        both = directions.sum(0).square().sum(-1, keepdim=True) - directions.square().sum((0, -1)).unsqueeze(-1)
        t = _position(both, n)
        return ((t.clamp(0, 1) if clamp else t) * rows.mean(0)).view(deltas.shape[1:])
    known = known or angle(whole(deltas, rows=True), filter_wise=False)
    assert known
    t = min(max(known.t, 0.0), 1.0) if clamp else known.t
    return weighted_sum(deltas, deltas.new_ones(n), normalize=False).mul_(t / n)


def _position(both: Tensor, n: int) -> Tensor:
    """`t` from the sum of the cosines of all ordered pairs."""
    cosine = both / (n * (n - 1))
    below = 1 + (n - 1) * cosine
    return torch.where(below > 1e-6, n * cosine / torch.where(below > 1e-6, below, 1.0), 0.0)
