"""Pure tensor helpers that several methods share. Inputs are never changed."""

from collections.abc import Callable

import torch
from torch import Tensor


def column(weights: Tensor, like: Tensor) -> Tensor:
    """(T,) weights shaped to multiply (T, *shape)."""
    return weights.view(-1, *[1] * (like.dim() - 1))


def largest(size: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest entries of `size` (numbers from 0).

    Tie rule: among equal numbers the lowest flat index comes first. bf16 deltas have about 1200 distinct magnitudes, so
    ties at the cut are the rule and not the exception.
    """
    n = size.numel()
    if count >= n:
        return torch.ones_like(size, dtype=torch.bool)
    if count <= 0:
        return torch.zeros_like(size, dtype=torch.bool)
    flat = size.flatten()
    cut = flat.kthvalue(n - count + 1).values
    above, at = flat > cut, flat == cut
    return (above | (at & (at.cumsum(0) <= count - above.sum()))).view_as(size)


def keep_largest(x: Tensor, density: float) -> Tensor:
    """`x` with all but its `int(density * n)` largest magnitudes set to 0; above density 0 at least one stays."""
    count = max(1, int(density * x.numel())) if density > 0 else 0
    return torch.where(largest(x.abs(), count), x, 0.0)


def elect_sign(x: Tensor) -> Tensor:
    """Sign (+1 or -1) of the sum over the first axis; a sum of 0 elects +1 (as mergekit does)."""
    return torch.where(x.sum(0) >= 0, 1.0, -1.0).to(x.dtype)


def weighted_sum(deltas: Tensor, weights: Tensor, *, normalize: bool, elect: bool = False) -> Tensor:
    """Sum of `w_t D_t` over the experts (deltas (T, *shape), weights (T,)).

    elect: only entries whose weighted sign agrees with the elected one take part (TIES' disjoint merge).
    normalize: divide by the weights that took part; a divisor below 1e-8 counts as 1.
    """
    weighted = deltas * column(weights, deltas)
    share = column(weights, deltas).expand_as(deltas)
    if elect:
        agrees = torch.sign(weighted) == elect_sign(weighted)
        weighted, share = weighted * agrees, share * agrees
    total = weighted.sum(0)
    if not normalize:
        return total
    divisor = share.sum(0)
    return total / torch.where(divisor.abs() < 1e-8, 1.0, divisor)


def drop_at_random(delta: Tensor, uniform: Tensor, density: float, *, rescale: bool, paper: bool) -> Tensor:
    """DARE's mask: an entry stays where its uniform number in [0, 1) lies below `density`.

    rescale: restore the L1 norm (mergekit since 0.1) or, with `paper`, divide the survivors by `density`, which
    keeps the expectation equal to `delta`.
    """
    if density >= 1:
        return delta.clone()
    kept = delta * (uniform < density)
    if not rescale or density <= 0:
        return kept
    return kept / density if paper else restore_l1(kept, delta)


def restore_l1(kept: Tensor, delta: Tensor) -> Tensor:
    """`kept`, what a mask left of `delta`, scaled to the L1 norm of `delta`; a mask that left nothing stays so."""
    before, after = delta.abs().sum(), kept.abs().sum()
    return kept * (before / after) if after > 0 else kept


def drop_each(deltas: Tensor, density: Tensor, bits: Callable[[int], Tensor], *, rescale: bool, paper: bool) -> Tensor:
    """DARE's mask on every expert's delta (T, *shape), each with its own density and uniform numbers `bits(t)`."""
    kept = [
        drop_at_random(delta, bits(t), float(density[t]), rescale=rescale, paper=paper)
        for t, delta in enumerate(deltas)
    ]
    return torch.stack(kept)


def outlier_threshold(size: Tensor, kappa: float, *, stat: str = "std", scope: str = "tensor") -> Tensor:
    """Threshold on absolute entries `size`: mean + kappa std, or median + kappa 1.4826 MAD (std is the population's).

    scope "row" measures each row of a matrix by itself; the result broadcasts against `size`.
    """
    per_row = scope == "row" and size.dim() > 1
    rows = size if per_row else size.flatten().unsqueeze(0)
    if stat == "mad":
        middle = median(rows)
        spread = 1.4826 * median((rows - middle).abs())
    else:
        middle, spread = rows.mean(-1, keepdim=True), rows.std(-1, keepdim=True, correction=0)
    theta = middle + kappa * spread
    return theta if per_row else theta.view([1] * size.dim())


def median(rows: Tensor) -> Tensor:
    """Median of each row, (..., 1): the mean of the two middle values where their number is even (torch takes one)."""
    n = rows.shape[-1]
    low, high = (rows.kthvalue(k + 1, dim=-1, keepdim=True).values for k in ((n - 1) // 2, n // 2))
    return (low + high) / 2


def sparsity(delta: Tensor, eta: float) -> float:
    """Share of entries below `eta` times the root mean square of all entries; 0 for a zero delta."""
    rms = delta.square().mean().sqrt()
    if rms == 0:
        return 0.0
    return int((delta.abs() < eta * rms).sum()) / delta.numel()


def hoyer_sparsity(delta: Tensor) -> float:
    """Hoyer's (sqrt(n) - |x|_1/|x|_2) / (sqrt(n) - 1): 0 for equal magnitudes, 1 for a single entry."""
    n = delta.numel()
    norm = delta.norm()
    if n < 2 or norm == 0:
        return 0.0
    return max(0.0, ((n**0.5 - delta.abs().sum() / norm) / (n**0.5 - 1)).item())
