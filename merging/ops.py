"""Tensor helpers that several methods share. Inputs are never changed, but for those of `elected_sum`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def column(weights: Tensor, like: Tensor) -> Tensor:
    """(T,) weights shaped to multiply (T, *shape)."""
    return weights.view(-1, *[1] * (like.dim() - 1))


def where_true(compare: Callable[..., Tensor], x: Tensor, y: Tensor | float) -> Tensor:
    """1.0 where `compare(x, y)`, 0.0 elsewhere: a mask to multiply with, several times faster than one of booleans."""
    return compare(x, y, out=torch.empty_like(x))


def elect_sign(x: Tensor) -> Tensor:
    """Sign (+1 or -1) of the sum over the first axis; a sum of 0 elects +1 (as mergekit does)."""
    total = torch.zeros_like(x[0])
    for row in x.unbind():  # in half the time of `sum`
        total += row
    return torch.ge(total, 0.0, out=total).mul_(2).sub_(1)


def weighted_sum(deltas: Tensor, weights: Tensor, *, normalize: bool) -> Tensor:
    """Sum of `w_t D_t` over the experts (deltas (T, *shape), weights (T,)).

    normalize: divide by the sum of the weights; a divisor below 1e-8 counts as 1.
    """
    if not len(deltas):
        return deltas.sum(0)
    (first, *others), (delta, *rest) = weights.tolist(), deltas.unbind()
    plain = first == 1 and others  # as in a mean: a pass over a block less, and the same bits
    total = torch.add(delta, rest.pop(0), alpha=others.pop(0)) if plain else delta * first
    for delta, weight in zip(rest, others, strict=True):
        total.add_(delta, alpha=weight)
    divisor = weights.sum().item() if normalize else 1.0
    return total if divisor == 1 or abs(divisor) < 1e-8 else total.div_(divisor)


def elected_sum(kept: Tensor, weights: Tensor, *, normalize: bool) -> Tensor:
    """The same over the entries whose weighted sign agrees with the elected one (TIES' disjoint merge).

    `kept` is what a mask made anew, and is changed: fresh memory for every step costs more than the step. normalize:
    divide by the weights that took part; a divisor below 1e-8 counts as 1.
    """
    sign = elect_sign(kept.mul_(column(weights, kept)))
    total, *others = kept.mul_(sign).unbind()
    divisor, agrees = torch.zeros_like(sign), torch.empty_like(sign)
    for part, weight in zip((total, *others), weights.tolist(), strict=True) if normalize else ():
        divisor.add_(torch.gt(part, 0.0, out=agrees), alpha=weight)
    kept.clamp_(min=0)
    for part in others:
        total += part
    total *= sign
    if not normalize:
        return total
    if weights.min() >= 1e-8:  # a smaller divisor is 0: nobody agrees, and the sum is 0 as well
        return total.div_(divisor.clamp_(min=1e-8))
    tiny = where_true(torch.lt, divisor.abs(), 1e-8)
    return total.div_(divisor.mul_(1 - tiny).add_(tiny))


def outlier_threshold(size: Tensor, kappa: float, *, stat: str = "std", scope: str = "tensor") -> Tensor:
    """Threshold on absolute entries `size`: mean + kappa std, or median + kappa 1.4826 MAD (std is the population's).

    scope "row" measures each row of a matrix by itself; the result broadcasts against `size`.
    """
    middle, spread = middle_and_spread(size, stat=stat, scope=scope)
    return middle + kappa * spread


def middle_and_spread(size: Tensor, *, stat: str, scope: str) -> tuple[Tensor, Tensor]:
    """What `outlier_threshold` is made of, whatever kappa is."""
    per_row = scope == "row" and size.dim() > 1
    rows = size if per_row else size.flatten().unsqueeze(0)
    if stat == "mad":
        middle = median(rows)
        spread = 1.4826 * median((rows - middle).abs())
    else:
        middle, spread = rows.mean(-1, keepdim=True), rows.std(-1, keepdim=True, correction=0)
    shape = middle.shape if per_row else [1] * size.dim()
    return middle.view(shape), spread.view(shape)


def median(rows: Tensor) -> Tensor:
    """Median of each row, (..., 1): the mean of the two middle values where their number is even (torch takes one)."""
    n = rows.shape[-1]
    low, high = (rows.kthvalue(k + 1, dim=-1, keepdim=True).values for k in ((n - 1) // 2, n // 2))
    return (low + high) / 2


def ascending(rows: Tensor) -> Tensor:
    """Indices (m, n) that sort each row of numbers that are not negative; equal ones by index.

    Ten times as fast as `argsort`: whole numbers of 32 bits are sorted, the upper bits of a number above its index, and
    a row in which numbers differ in the lower bits alone is sorted again with all of them.
    """
    if rows.dtype != torch.float32 or rows.device.type != "cpu":
        return rows.argsort(dim=-1, stable=True)
    bits, n = rows.contiguous().view(torch.int32), rows.shape[-1]
    width, index = max(1, (n - 1).bit_length()), np.arange(n, dtype=np.uint32)
    keys = bits.numpy().view(np.uint32) >> (width - 1)
    keys <<= width
    keys |= index
    keys.sort(axis=1)
    keys &= (1 << width) - 1
    order = torch.from_numpy(keys.astype(np.int64))
    cut = torch.from_numpy(np.bitwise_or.reduce(bits.numpy(), axis=1) & ((1 << (width - 1)) - 1) != 0)
    fine = cut.nonzero().flatten()  # rows with such lower bits; deltas of bfloat16 models have few
    found = bits[fine].gather(1, order[fine])
    wrong = fine[(found[:, 1:] < found[:, :-1]).any(1)]
    if len(wrong):
        full = (bits[wrong].long() << 32 | torch.arange(n)).numpy()
        full.sort(axis=1)
        order[wrong] = torch.from_numpy(full & 0xFFFFFFFF)
    return order


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
