"""Element-wise merges block by block: what a method must know of the whole tensor, from passes over its blocks.

A block fits the processor's cache and its temporaries are reused by the allocator, which saves most of a merge's time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 17  # entries

Bits = Callable[[int], Tensor]  # expert -> its uniform numbers


@dataclass(frozen=True)
class Blocks:
    """A stack of tensors (T, *shape) cut along the first axis of `shape`, to be read as often as asked."""

    shape: tuple[int, ...]
    read: Callable[[int, int], Tensor]  # start, stop -> (T, stop - start, ...)
    bits: Callable[[int, int, int], Tensor] | None = None  # expert, start, stop -> the numbers of those entries

    @property
    def width(self) -> int:
        """Entries in one step of the axis."""
        return int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def step(self) -> int:
        return min(max(1, BLOCK // max(1, self.width)), self.shape[0])

    def spans(self) -> Iterator[tuple[int, int]]:
        n = self.shape[0]
        return ((start, min(start + self.step, n)) for start in range(0, n, max(1, self.step)))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Blocks":
        return replace(self, read=lambda start, stop: change(self.read(start, stop)))

    def bits_of(self, start: int, stop: int) -> Bits:
        assert self.bits
        bits = self.bits
        return lambda t: bits(t, start, stop)


def blocks_shape(shape: tuple[int, ...], rows: bool) -> tuple[int, ...]:
    """A tensor's shape as blocks see it: a plain row of entries, or whole rows (a vector is one row)."""
    if not rows:
        return (int(np.prod(shape, dtype=np.int64)),)
    return shape if len(shape) > 1 else (1, int(np.prod(shape, dtype=np.int64)))


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


@dataclass(frozen=True)
class Cut:
    """Where the largest entries end: those above `value` belong to them, and those equal to it before index `end`."""

    value: float
    end: int

    def at(self, start: int) -> "Cut":
        """The same cut in a block that begins at flat index `start`."""
        return replace(self, end=self.end - start)

    def keep(self, x: Tensor) -> Tensor:
        """`x` with 0 where its magnitude is not among the largest."""
        flat = x.reshape(-1)
        ends = min(max(self.end, 0), len(flat))
        # hardshrink keeps what lies above a threshold, several times faster than a mask
        below = float(np.nextafter(np.float32(self.value), np.float32(-1)))
        parts = [(flat[:ends], below), (flat[ends:], self.value)]
        kept = [torch.nn.functional.hardshrink(part, level) for part, level in parts if len(part)]
        return (kept[0] if len(kept) == 1 else torch.cat(kept)).view_as(x) if kept else x.clone()


NOTHING = Cut(float("inf"), 0)
Wanted = Callable[[int], int]  # number of entries that are not 0 -> how many of the largest to keep


def find_cuts(sizes: Blocks, wanted: Sequence[Sequence[Wanted]]) -> list[list[Cut]]:
    """For each of a stack's magnitudes (T, n), float32, the cuts that keep as many entries as its `wanted` ask.

    Exact: a sample brackets each cut between two magnitudes, one pass counts what lies above the bracket and collects
    what lies inside, and a bracket that missed moves to its side for another pass. Entries of 0 are never cut apart.
    Among equal magnitudes the lowest flat index comes first: bf16 deltas have about 1200 distinct ones, so ties are
    the rule.
    """
    n = sizes.shape[0]
    every = {(t, j): want for t, wants in enumerate(wanted) for j, want in enumerate(wants)}
    found = {key: NOTHING for key, want in every.items() if want(n) <= 0}
    found |= {key: Cut(0.0, n) for key, want in every.items() if want(0) >= n}
    brackets = {}
    if len(found) < len(every):
        samples = _sample(sizes)
        filled = np.count_nonzero(samples, axis=1) / samples.shape[1] * n
        brackets = {
            (t, j): _bracket(samples[t], want(int(filled[t])), n)
            for (t, j), want in every.items()
            if (t, j) not in found
        }
    while brackets:
        above, inside, filled = _scan(sizes, brackets)
        for key, (low, high) in list(brackets.items()):
            t, j = key
            count = wanted[t][j](filled[t])
            places, values = inside[key]
            need = count - above[key]
            if count <= 0:
                found[key] = NOTHING
            elif count >= filled[t]:
                found[key] = Cut(0.0, n)
            elif need <= 0:
                brackets[key] = (float(np.nextafter(high, np.float32(np.inf))), np.inf)
                continue
            elif need > len(values):
                brackets[key] = (0.0, float(np.nextafter(low, np.float32(-1))))
                continue
            else:
                value = np.partition(values, len(values) - need)[len(values) - need]
                last = need - int(np.count_nonzero(values > value))
                found[key] = Cut(float(value), int(places[values == value][last - 1]) + 1)
            del brackets[key]
    return [[found[t, j] for j in range(len(wants))] for t, wants in enumerate(wanted)]


def _sample(sizes: Blocks) -> np.ndarray:
    """Some entries of each of the stack, sorted: all of a small tensor, else 1/64, in pieces spread over it."""
    n = sizes.shape[0]
    step, piece = min(1 << 16, n // 32), 1024
    if n <= 1 << 15:
        return np.sort(sizes.read(0, n).cpu().numpy(), axis=1)
    parts = [sizes.read(at, min(at + piece, n)).cpu().numpy() for at in range(0, n, step)]
    return np.sort(np.concatenate(parts, axis=1), axis=1)


def _bracket(sample: np.ndarray, count: int, n: int) -> tuple[float, float]:
    """Magnitudes between which the `count`-th largest of n entries lies, most likely."""
    size = len(sample)
    slack = 0 if size == n else int(size * (0.01 + 0.2 * (1024 / size) ** 0.5)) + 2
    rank = size - count * size / n
    low, high = int(rank) - slack - 1, int(rank) + slack + 1
    return float(sample[low]) if low > 0 else 0.0, float(sample[high]) if high < size else np.inf


def _scan(sizes: Blocks, brackets: dict) -> tuple[dict, dict, dict[int, int]]:
    """How many entries lie above each bracket; places and values of those inside; how many are not 0."""
    above = dict.fromkeys(brackets, 0)
    inside: dict = {key: ([], []) for key in brackets}
    filled: dict[int, int] = dict.fromkeys({t for t, _ in brackets}, 0)
    for start, stop in sizes.spans():
        block = sizes.read(start, stop).cpu().numpy()
        for t in filled:
            filled[t] += int(np.count_nonzero(block[t] > 0))
        for (t, j), (low, high) in brackets.items():
            row = block[t]
            above[t, j] += int(np.count_nonzero(row > high))
            places = np.flatnonzero((row >= max(low, np.float32(1e-45))) & (row <= high))
            inside[t, j][0].append(places + start)
            inside[t, j][1].append(row[places])
    joined = {key: (np.concatenate(places), np.concatenate(values)) for key, (places, values) in inside.items()}
    return above, joined, filled
