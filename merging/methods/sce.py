from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from merging.blocks import Blocks, total, whole
from merging.cuts import Cut, find_cuts
from merging.method import Choice, Number, Paper, merge_method
from merging.ops import elect_sign, where_true


@dataclass(frozen=True)
class Selected:
    """Where the entries of largest variance end, and each expert's share of what they hold."""

    cut: Cut | None
    shares: tuple[float, ...]

    def at(self, start: int) -> "Selected":
        return replace(self, cut=self.cut and self.cut.at(start))

    def of(self, deltas: Tensor) -> Tensor:
        return deltas if self.cut is None else deltas * self.cut.keep(variance(deltas)[0]).sign_()


def variance(deltas: Tensor) -> Tensor:
    """(1, *shape) over the experts (T, *shape)."""
    mean = deltas.sum(0).div_(len(deltas))
    spread = torch.zeros_like(mean)
    for delta in deltas:
        spread += (delta - mean).square_()
    return spread.div_(len(deltas)).unsqueeze(0)


def select(blocks: Blocks, *, select_topk: float, convention: str, **_: object) -> Selected:
    cut = None
    if select_topk < 1:
        ((cut,),) = find_cuts(blocks.map(variance), [[lambda varying: int(select_topk * varying)]])
    chosen = Selected(cut, ())
    energy = total(blocks, lambda a, b, x: chosen.at(a).of(x).square().sum(1)) / blocks.shape[0]
    floor = 1e-6 if convention == "mergekit" else 0.0
    whole_energy = float(energy.sum())
    share = energy / whole_energy if whole_energy > floor else torch.full_like(energy, 1 / len(energy))
    return Selected(cut, tuple(share.tolist()))


@merge_method(
    title="SCE",
    paper=Paper("FuseChat: Knowledge Fusion of Chat Models", "2408.07990", 2024),
    uses_weight=False,
    blocks="flat",
    measure=select,
    version=2,
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
    chosen = known.of(deltas)
    sign, total, divisor = elect_sign(chosen), *deltas.new_zeros(2, *deltas.shape[1:])
    for share, delta in zip(known.shares, chosen, strict=True):
        along = delta * sign
        divisor += where_true(torch.gt, along, 0.0).mul_(share)
        total += along.clamp_(min=0).mul_(share)
    return total.mul_(sign).div_(divisor.clamp_(min=1e-6))
