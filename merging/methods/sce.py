from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from merging.blocks import Blocks, total, whole
from merging.cuts import find_cuts
from merging.masks import Mask
from merging.method import Choice, Number, Paper, merge_method
from merging.ops import elect_sign, weighted_sum


@dataclass(frozen=True)
class Selected:
    """The entries of largest variance (None: all), and each expert's share of what they hold."""

    mask: Mask | None
    shares: tuple[float, ...]

    def at(self, start: int) -> "Selected":
        return replace(self, mask=self.mask and self.mask.at(start))


def variance(deltas: Tensor) -> Tensor:
    """(1, *shape) over the experts (T, *shape)."""
    first, *others = deltas.unbind()
    mean = sum(others, first) / len(deltas)
    spread, apart = torch.sub(first, mean).square_(), torch.empty_like(mean)
    for delta in others:
        spread.addcmul_(torch.sub(delta, mean, out=apart), apart)
    return spread.div_(len(deltas)).unsqueeze(0)


def select(blocks: Blocks, *, select_topk: float, convention: str, **_: object) -> Selected:
    cut, mask = None, Mask.of(blocks, 1)
    if select_topk < 1:
        ((cut,),) = find_cuts(blocks.map(variance), [[lambda varying: int(select_topk * varying)]])

    def energies(start: int, _: int, deltas: Tensor) -> Tensor:
        if cut:
            kept = cut.at(start).keep(variance(deltas)).sign_()
            mask.note(start, kept)
            deltas = deltas * kept
        return torch.linalg.vector_norm(deltas.flatten(1), dim=1).square_()

    energy = total(blocks, energies) / blocks.shape[0]
    floor = 1e-6 if convention == "mergekit" else 0.0
    whole_energy = float(energy.sum())
    share = energy / whole_energy if whole_energy > floor else torch.full_like(energy, 1 / len(energy))
    return Selected(mask if cut else None, tuple(share.tolist()))


@merge_method(
    title="SCE",
    paper=Paper("FuseChat: Knowledge Fusion of Chat Models", "2408.07990", 2024),
    uses_weight=False,
    blocks="flat",
    measure=select,
    version=3,
)
def sce(
    deltas: Tensor,
    weights: Tensor,
    *,
    select_topk: Annotated[
        float, Number(0.0, 1.0, 0.05, 1.0, "Selected", "Share of entries kept, by their variance.", first=True)
    ],
    convention: Annotated[
        str, Choice(("mergekit", "paper"), "Convention", "Tiny deltas weigh alike, or by energy.", screen="paper")
    ],
    known: Selected | None = None,
) -> Tensor:
    """Keeps the entries where experts differ most, weighs each expert by its energy, and drops minority signs.

    Select the `int(select_topk * n)` entries of largest variance over the experts (n: those that vary; at 1 all stay),
    calculate `c_t` = mean square of what is left, erase signs against the sum: `sum c_t D_t / sum c_t` over those that
    agree. `convention: mergekit` takes equal weights where all energies sum to less than 1e-6. deltas (T, *shape).
    """
    known = known or select(whole(deltas), select_topk=select_topk, convention=convention)
    chosen = deltas.clone() if known.mask is None else deltas * known.mask(deltas)
    sign = elect_sign(chosen)
    divisor, agrees = torch.zeros_like(sign), torch.empty_like(sign)
    for share, delta in zip(known.shares, chosen.mul_(sign), strict=True):
        divisor.add_(torch.gt(delta, 0.0, out=agrees), alpha=share)
    shares = torch.tensor(known.shares, dtype=torch.float64)
    merged = weighted_sum(chosen.clamp_(min=0), shares, normalize=False)
    return merged.mul_(sign).div_(divisor.clamp_(min=1e-6))
