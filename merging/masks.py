"""Masks over a delta: which entries of it a method keeps, and by what chance."""

from collections.abc import Callable

import torch
from torch import Tensor

from merging.ops import largest, restore_l1


def drop_extremes(delta: Tensor, density: float, gamma: float, *, rescale: bool) -> Tensor:
    """Breadcrumbs' mask: without the `int(gamma * n)` largest magnitudes, then the `int(density * n)` largest left.

    The cut at the top shrinks where both together exceed n. rescale: restore the L1 norm.
    """
    n, size = delta.numel(), delta.abs()
    kept = min(max(int(density * n), 0), n)
    top = min(int(gamma * n), n - kept)
    found = torch.where(largest(size, kept + top) & ~largest(size, top), delta, 0.0)
    return restore_l1(found, delta) if rescale else found


def drop_extremes_each(deltas: Tensor, density: Tensor, gamma: Tensor, *, rescale: bool) -> Tensor:
    """`drop_extremes` of every expert's delta (T, *shape), each with its own density and gamma (T,)."""
    kept = [
        drop_extremes(d, float(p), float(g), rescale=rescale) for d, p, g in zip(deltas, density, gamma, strict=True)
    ]
    return torch.stack(kept)


def keep_chances(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """DELLA's chance of each entry to stay: by its rank in its row, from density - epsilon up to density + epsilon.

    Equal magnitudes rank by index; a row of one entry has the chance `density`; chances are clipped to 0..1. A row is
    one index of the first axis; a vector is one row.
    """
    rows = delta.abs().reshape(delta.shape[0] if delta.dim() > 1 else 1, -1)
    n = rows.shape[-1]
    rank = rows.argsort(dim=-1, stable=True).argsort(dim=-1).to(delta.dtype)
    spread = 2 * epsilon * rank / (n - 1) - epsilon if n > 1 else torch.zeros_like(rows)
    return (density + spread).clamp(0, 1).view_as(delta)


def drop_by_rank(
    delta: Tensor, uniform: Tensor, density: float, epsilon: float, *, rescale: bool, paper: bool
) -> Tensor:
    """DELLA's MagPrune: an entry stays where its uniform number lies below its chance (`keep_chances`).

    rescale: restore the L1 norm (mergekit) or, with `paper`, divide each survivor by its own chance.
    """
    if density >= 1:
        return delta.clone()
    if density <= 0:
        return torch.zeros_like(delta)
    chance = keep_chances(delta, density, epsilon)
    kept = torch.where(uniform < chance, delta, 0.0)
    if not rescale:
        return kept
    return kept / torch.where(chance > 0, chance, 1.0) if paper else restore_l1(kept, delta)


def drop_each_by_rank(
    deltas: Tensor,
    density: Tensor,
    epsilon: Tensor,
    bits: Callable[..., Tensor],
    *,
    rescale: bool,
    paper: bool,
) -> Tensor:
    """MagPrune on every expert's delta (T, *shape), each with its own density, epsilon and numbers `bits(t)`."""
    kept = [
        drop_by_rank(delta, bits(t), float(density[t]), float(epsilon[t]), rescale=rescale, paper=paper)
        for t, delta in enumerate(deltas)
    ]
    return torch.stack(kept)


def changed(deltas: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Which entries each expert changed by more than `epsilon` (T, *shape), and how many experts changed each."""
    moved = deltas.abs() > epsilon
    return moved, moved.sum(0)


def agreement_mask(deltas: Tensor, merged: Tensor, lam: Tensor, k: float) -> Tensor:
    """Where at least `k` experts find their task in `merged`: `|D_t| > lam_t |merged - D_t|` (TALL masks, eq. 5)."""
    share = lam.to(deltas.dtype).view(-1, *[1] * (deltas.dim() - 1))
    return (deltas.abs() > share * (merged - deltas).abs()).sum(0) >= k
