"""Masks over a delta: which entries of it a method keeps, and by what chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from merging.blocks import Bits, Blocks, total
from merging.cuts import NOTHING, Cut, find_cuts
from merging.ops import ascending, column, where_true


@dataclass(frozen=True)
class Trim:
    """What a rule of magnitudes leaves of each delta: the largest entries, without the very largest, scaled."""

    kept: tuple[Cut, ...]
    top: tuple[Cut, ...]
    factors: tuple[float, ...]

    def at(self, start: int) -> "Trim":
        return replace(
            self, kept=tuple(cut.at(start) for cut in self.kept), top=tuple(cut.at(start) for cut in self.top)
        )

    def __call__(self, deltas: Tensor) -> Tensor:
        """deltas (T, *shape), of which the first entry is the one that the cuts count from."""
        out = torch.empty(deltas.shape, dtype=deltas.dtype, device=deltas.device)
        for t, delta in enumerate(deltas):
            self.kept[t].keep(delta, out[t])
            if self.top[t] is not NOTHING:
                out[t] -= self.top[t].keep(delta)
            if self.factors[t] != 1:
                out[t] *= self.factors[t]
        return out


def find_trim(
    blocks: Blocks, density: Tensor, gamma: Tensor | None = None, *, rescale: bool, at_least: int = 0
) -> Trim:
    """Keeps the `int(density n)` largest magnitudes, with `gamma` those that follow the `int(gamma n)` largest.

    The cut at the top shrinks where both together exceed n. at_least: entries kept above density 0. rescale: restore
    each delta's L1 norm.
    """
    n = blocks.shape[0]
    wanted = []
    for t, share in enumerate(density.tolist()):
        kept = min(max(int(share * n), at_least if share > 0 else 0), n)
        top = 0 if gamma is None else min(int(float(gamma[t]) * n), n - kept)
        wanted.append((kept + top, top))
    counts = [[lambda _, count=count: count for count in pair] for pair in wanted]
    cuts = find_cuts(blocks.map(torch.abs), counts, blocks.counts)
    kept, top = (tuple(pair[j] for pair in cuts) for j in (0, 1))
    trim = Trim(kept, top, (1.0,) * len(cuts))
    if not rescale:
        return trim
    return replace(trim, factors=l1_factors(blocks, lambda a, _, x: trim.at(a)(x)))


def l1_factors(blocks: Blocks, mask: Callable[[int, int, Tensor], Tensor]) -> tuple[float, ...]:
    """What restores each delta's L1 norm after `mask(start, stop, block)`, a new tensor; 1 where it left nothing."""

    def norms(start: int, stop: int, block: Tensor) -> Tensor:
        kept = mask(start, stop, block)
        return torch.stack([block.abs().flatten(1).sum(1), kept.abs_().flatten(1).sum(1)])

    before, after = total(blocks, norms).tolist()
    return tuple(b / a if a > 0 else 1.0 for b, a in zip(before, after, strict=True))


def drop_at_random(deltas: Tensor, density: Sequence[float], bits: Bits) -> Tensor:
    """DARE's mask: an entry stays where its uniform number in [0, 1) lies below its expert's density."""
    out = torch.empty_like(deltas)
    for t, share in enumerate(density):
        torch.mul(deltas[t], where_true(torch.lt, bits(t), share) if share < 1 else 1.0, out=out[t])
    return out


def dare_factors(blocks: Blocks, *, density: Tensor, rescale: bool, convention: str, **_: object) -> "Pruned":
    """What scales the survivors: to the L1 norm before (mergekit), or by 1 / density (paper)."""
    shares = density.tolist()
    if not rescale or min(shares) >= 1:
        return Pruned((1.0,) * len(shares))
    if convention == "paper":
        return Pruned(tuple(1 / share if 0 < share < 1 else 1.0 for share in shares))
    return _restored(blocks, len(shares), lambda a, b, x: drop_at_random(x, shares, blocks.bits_of(a, b)))


def scaled(kept: Tensor, factors: Sequence[float]) -> Tensor:
    for row, factor in zip(kept, factors, strict=True):
        if factor != 1:
            row *= factor
    return kept


def keep_chances(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """DELLA's chance of each entry to stay: by its rank in its row, from density - epsilon up to density + epsilon.

    Equal magnitudes rank by index; a row of one entry has the chance `density`; chances are clipped to 0..1. A row is
    one index of the first axis; a vector is one row.
    """
    rows = delta.abs().reshape(delta.shape[0] if delta.dim() > 1 else 1, -1)
    n = rows.shape[-1]
    rank = torch.arange(n, dtype=delta.dtype, device=delta.device)
    chance = (density + (2 * epsilon * rank / (n - 1) - epsilon if n > 1 else torch.zeros_like(rank))).clamp(0, 1)
    return torch.empty_like(rows).scatter_(1, ascending(rows), chance.expand_as(rows)).view_as(delta)


def drop_by_rank(deltas: Tensor, density: Tensor, epsilon: Tensor, bits: Bits, *, divide: bool = False) -> Tensor:
    """DELLA's MagPrune: an entry stays where its uniform number lies below its chance (`keep_chances`).

    divide: each survivor by its own chance.
    """
    out = deltas.clone()
    for t, (share, spread) in enumerate(zip(density.tolist(), epsilon.tolist(), strict=True)):
        if share <= 0:
            out[t] = 0.0
        elif share < 1:
            chance = keep_chances(deltas[t], share, spread)
            out[t] *= torch.lt(bits(t), chance, out=torch.empty_like(chance))
            if divide:
                out[t] /= chance.clamp(min=2.0**-20)  # no number lies below a smaller chance
    return out


@dataclass(frozen=True)
class Mask:
    """Which entries of each of a stack stay, a bit for each: dear to find, and cheap to keep. `note` fills the bits."""

    bits: np.ndarray  # (T, rows, bytes)
    width: int  # entries in a row
    row: int = 0

    @staticmethod
    def of(blocks: Blocks, many: int) -> "Mask":
        """Of `many` tensors, without any entry yet. A row is one of the blocks', or a whole flat block."""
        width = max(1, blocks.width if len(blocks.shape) > 1 else blocks.step)
        return Mask(np.zeros((many, -(-prod(blocks.shape) // width), -(-width // 8)), np.uint8), width)

    def note(self, at: int, kept: Tensor) -> None:
        """The block (T, ...) that begins at flat index `at` is known: what is not 0 stays."""
        there = (kept.cpu().numpy() != 0).reshape(len(kept), -1, min(self.width, kept[0].numel()))
        rows = slice(row := at // self.width, row + there.shape[1])
        self.bits[:, rows, : -(-there.shape[2] // 8)] = np.packbits(there, axis=2)

    def at(self, start: int) -> "Mask":
        return replace(self, row=self.row + start // self.width)

    def __call__(self, deltas: Tensor) -> Tensor:
        """For a block (any number, *shape) that begins where the mask does: 1.0 where an entry stays, else 0.0."""
        n = deltas[0].numel()
        bits = self.bits[:, self.row : self.row - (-n // self.width)]
        mask = np.unpackbits(bits, axis=2, count=self.width).reshape(len(bits), -1)[:, :n]
        return torch.from_numpy(mask).to(deltas.device, deltas.dtype).view(len(bits), *deltas.shape[1:])


@dataclass(frozen=True)
class Pruned:
    """A factor for what a random mask leaves of each delta, and the mask where finding the factors has drawn it."""

    factors: tuple[float, ...]
    mask: Mask | None = None

    def at(self, start: int) -> "Pruned":
        return replace(self, mask=self.mask and self.mask.at(start))

    def __call__(self, deltas: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        """deltas (T, *shape) through the mask, which `draw` applies where it is not known."""
        return scaled(draw(deltas) if self.mask is None else deltas * self.mask(deltas), self.factors)


def _restored(blocks: Blocks, experts: int, drop: Callable[[int, int, Tensor], Tensor]) -> Pruned:
    """The mask that `drop(start, stop, block)` draws, and what restores each delta's L1 norm after it."""
    mask = Mask.of(blocks, experts)

    def noted(start: int, stop: int, block: Tensor) -> Tensor:
        out = drop(start, stop, block)
        mask.note(start * blocks.width, out)
        return out

    return Pruned(l1_factors(blocks, noted), mask)


def prune(blocks: Blocks, *, density: Tensor, epsilon: Tensor, rescale: bool, convention: str, **_: object) -> Pruned:
    """What restores the L1 norm (mergekit's convention); 1 where each survivor has its own factor (paper)."""
    if not rescale or convention == "paper" or float(density.min()) >= 1:
        return Pruned((1.0,) * len(density))
    return _restored(blocks, len(density), lambda a, b, x: drop_by_rank(x, density, epsilon, blocks.bits_of(a, b)))


def changed(deltas: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Which entries each expert changed by more than `epsilon` (T, *shape), and how many experts changed each."""
    moved = deltas.abs() > epsilon
    return moved, moved.sum(0)


def agreement_mask(deltas: Tensor, merged: Tensor, lam: Tensor, k: float) -> Tensor:
    """Where at least `k` experts find their task in `merged`: `|D_t| > lam_t |merged - D_t|` (TALL masks, eq. 5)."""
    return (deltas.abs() > column(lam.to(deltas), deltas) * (merged - deltas).abs()).sum(0) >= k
