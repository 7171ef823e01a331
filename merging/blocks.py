"""Element-wise merges block by block: what a method must know of the whole tensor, from passes over its blocks.

A block fits the processor's cache and its temporaries are reused by the allocator, which saves most of a merge's time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Self

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 17  # entries
CODES = 1 << 15  # of magnitudes: the upper 16 bits of a float32 without its sign

Bits = Callable[[int], Tensor]  # expert -> its uniform numbers


@dataclass(frozen=True, eq=False)
class Counts:
    """How many magnitudes of a tensor have each of the codes that occur, and how many of them are the code's least."""

    codes: np.ndarray
    counts: np.ndarray
    least: np.ndarray


@dataclass(frozen=True)
class Blocks:
    """A stack of tensors (T, *shape) cut along the first axis of `shape`, to be read as often as asked."""

    shape: tuple[int, ...]
    read: Callable[[int, int], Tensor]  # start, stop -> (T, stop - start, ...)
    bits: Callable[[int, int, int], Tensor] | None = None  # expert, start, stop -> the numbers of those entries
    counts: tuple[Counts, ...] = ()  # of the stack's magnitudes, where they are known beforehand

    @cached_property
    def width(self) -> int:
        """Entries in one step of the axis."""
        return prod(self.shape[1:])

    @property
    def step(self) -> int:
        return min(max(1, BLOCK // max(1, self.width)), self.shape[0])

    def spans(self) -> Iterator[tuple[int, int]]:
        n = self.shape[0]
        return ((start, min(start + self.step, n)) for start in range(0, n, max(1, self.step)))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Blocks":
        return replace(self, read=lambda start, stop: change(self.read(start, stop)), counts=())

    def bits_of(self, start: int, stop: int) -> Bits:
        assert self.bits
        bits = self.bits
        return lambda t: bits(t, start, stop)


def blocks_shape(shape: tuple[int, ...], rows: bool) -> tuple[int, ...]:
    """A tensor's shape as blocks see it: a plain row of entries, or whole rows (a vector is one row)."""
    if not rows:
        return (prod(shape),)
    return shape if len(shape) > 1 else (1, prod(shape))


def whole(stack: Tensor, bits: Bits | None = None, *, rows: bool = False) -> Blocks:
    """The same view of a stack (T, *shape) that lies in memory."""
    shape = blocks_shape(tuple(stack.shape[1:]), rows)
    laid = stack.reshape(len(stack), *shape)
    numbers = None if bits is None else (lambda t, start, stop: bits(t).reshape(shape)[start:stop])
    return Blocks(shape, lambda start, stop: laid[:, start:stop], numbers)


class Everywhere:
    """A measured thing that is the same in every block."""

    def at(self, start: int) -> Self:
        return self


def total(blocks: Blocks, measure: Callable[[int, int, Tensor], Tensor]) -> Tensor:
    """Float64 sum over the blocks of what `measure(start, stop, block)` finds in each."""
    return torch.stack([measure(a, b, blocks.read(a, b)).double() for a, b in blocks.spans()]).sum(0)
