from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from merging.arcs import karcher_point
from merging.blocks import Blocks, Everywhere, total, whole
from merging.method import Number, Paper, merge_method
from merging.ops import weighted_sum


@dataclass(frozen=True)
class Shares(Everywhere):
    """How much of each model goes in."""

    shares: tuple[float, ...]


def mean_shares(blocks: Blocks, *, max_iter: float, tol: float, **_: object) -> Shares:
    gram = total(blocks, lambda a, b, x: _gram(x)).cpu()
    norms = gram.diagonal().sqrt()
    there = norms > 0
    lengths, shares = norms[there], torch.zeros_like(norms)
    if len(lengths):
        directions = gram[there][:, there] / torch.outer(lengths, lengths)
        shares[there] = norms.mean() * karcher_point(directions, int(max_iter), tol) / lengths
    return Shares(tuple(shares.tolist()))


def _gram(block: Tensor) -> Tensor:
    """In float64, because experts of one base differ by little; in pieces, whose memory the allocator uses again."""
    pieces = (piece.double() for piece in block.flatten(1).split(1 << 14, dim=1))
    return torch.stack([piece @ piece.T for piece in pieces]).sum(0)


@merge_method(
    title="Karcher mean",
    paper=Paper("Functionality-Oriented LLM Merging on the Fisher-Rao Manifold", "2603.04972", 2026),
    space="weights",
    uses_weight=False,
    blocks="flat",
    measure=mean_shares,
    version=2,
)
def karcher(
    models: Tensor,
    weights: Tensor,
    *,
    max_iter: Annotated[float, Number(0, 100, 1, 10, "Steps", "At most so many steps to the mean.", first=True)],
    tol: Annotated[float, Number(0.0, 0.1, 1e-5, 1e-5, "Tolerance", "Stops once a step is shorter than this.")],
    known: Shares | None = None,
) -> Tensor:
    """Finds the point on the sphere that lies nearest to all models, at their mean length.

    Riemannian mean of the flattened, normalised models (T, *shape) with equal weights, times the mean of their norms.
    A zero tensor has no direction but counts in the mean norm. Models that cancel (a mean direction shorter than 1e-6)
    start from the first of them. The base takes part only if the recipe lists it.
    """
    known = known or mean_shares(whole(models), max_iter=max_iter, tol=tol)
    return weighted_sum(models, torch.tensor(known.shares, dtype=models.dtype), normalize=False)
