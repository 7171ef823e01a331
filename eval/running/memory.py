"""What models take in memory together: tensors that are equal lie there once."""

from collections.abc import Collection, Iterable, Mapping
from math import prod

import torch
from torch import Tensor
from transformers import PreTrainedModel

Shapes = Mapping[str, tuple[int, ...]]


def n_bytes(
    shapes: Shapes, itemsize: int, *, shared: Collection[str] = (), ranks: Mapping[str, int] | None = None
) -> int:
    """What a model takes beside its base: nothing for a `shared` tensor, `R (m + n + 1)` entries for a matrix that
    stays a fold of R = `ranks[name]` directions, and `itemsize` bytes for each entry of the others.
    """
    ranks = ranks or {}
    own = [name for name in shapes if name not in shared]
    return itemsize * sum(
        ranks[name] * (sum(shapes[name]) + 1) if name in ranks else prod(shapes[name]) for name in own
    )


def in_memory(tensors: Iterable[Tensor]) -> int:
    """Bytes that these take, shared memory counted once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@torch.no_grad()
def share(module: PreTrainedModel, others: Iterable[PreTrainedModel]) -> None:
    """Let every tensor of `module` that another model holds too be that one in memory; their weights must stay."""
    for other in others:
        theirs = dict(other.named_parameters())
        for name, own in module.named_parameters():
            if name in theirs and _equal(own, theirs[name]):
                own.data = theirs[name].data


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    first = one.flatten()[:1024].to(other.device)  # most differ there already
    return torch.equal(first, other.flatten()[:1024]) and torch.equal(one.to(other.device), other)
