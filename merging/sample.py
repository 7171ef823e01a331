"""A first map of a family that takes long to read: signs and cosines from about one entry in sixteen.

For the screen alone. It is neither kept nor taken for the profile (`merging/facts.py`), which follows.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Generator, Tensor

from merging.checkpoint import Checkpoint
from merging.facts import pairs_of
from merging.look import Family, Look, Matrix, early_look

PIECE = 1 << 11  # entries read in one go: a page of bfloat16
ONE_IN = 16
LEAST = 32  # pieces of a matrix: fewer may miss the few rows that hold much of a delta


class Sample:
    """The pairs of a family's experts, each matrix measured once. No two threads may work on one matrix at a time.

    Strata are equal stretches of a matrix's entries, one piece of each lies at random. On the synthetic families of the
    tests and benchmarks cosines are within 0.05 of the exact ones, shares of opposite signs within 0.02.
    """

    def __init__(self, family: Family, base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
        self._family, self._models = family, (base, *experts)
        self._found: dict[str, tuple[list[float], list[float]]] = {}

    def learn(self, matrix: Matrix) -> None:
        if matrix.name not in self._found:
            models = torch.stack([_read(model, matrix.name) for model in self._models])
            dots, pairs = pairs_of(models[1:] - models[0])
            norms = dots.diagonal().sqrt().tolist()
            cosines = [pair.cosine(norms[a], norms[b]) for (a, b), pair in pairs.items()]
            self._found[matrix.name] = [pair.sign_conflict for pair in pairs.values()], cosines

    def look(self, digest: str, seconds: float) -> Look:
        """The maps of all matrices, which must be learnt; without anything that a recipe decides."""
        return early_look(digest, self._family, self._found, seconds, "sample")


def starts(n: int) -> list[int]:
    """Where the pieces of a tensor of n entries begin, the same in every run; a small tensor is one piece."""
    if n <= LEAST * PIECE:
        return [0]
    stride = min(ONE_IN * PIECE, n // LEAST)
    strata = torch.arange(0, n - PIECE + 1, stride)
    inside = torch.rand(len(strata), generator=Generator().manual_seed(0)) * (stride - PIECE)
    return (strata + inside.long()).clamp(max=n - PIECE).tolist()


def _read(model: Checkpoint, name: str) -> Tensor:
    """Float32 of the sampled entries."""
    n = prod(model.tensors[name].shape)
    places = starts(n)
    piece = n if len(places) == 1 else PIECE
    found = torch.empty(len(places), piece)
    with model.parts(name) as part:
        for row, at in zip(found, places, strict=True):
            row.copy_(part(at, at + piece))
    return found.flatten()
