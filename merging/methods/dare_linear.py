from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from merging.blocks import whole
from merging.masks import Pruned, dare_factors, drop_at_random
from merging.method import Choice, Lambda, Number, Paper, Switch, merge_method
from merging.ops import weighted_sum

DENSITY = Number(
    0.0, 1.0, 0.05, 1.0, "Density", "Share of entries kept, at random.", screen=0.5, per_expert=True, first=True
)
RESCALE = Switch(True, "Rescale", "Make up for the dropped entries.")
CONVENTION = Choice(("mergekit", "paper"), "Convention", "Rescale by L1 norm, or divide by density.", screen="paper")
PAPER = Paper("Language Models are Super Mario (DARE)", "2311.03099", 2023)


@merge_method(title="DARE linear", paper=PAPER, random=True, blocks="flat", measure=dare_factors, version=2)
def dare_linear(
    deltas: Tensor,
    weights: Tensor,
    *,
    bits: Callable[[int], Tensor],
    density: Annotated[Tensor, DENSITY],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(False, "Normalize", "Divide by the sum of the weights.")],
    convention: Annotated[str, CONVENTION],
    known: Pruned | None = None,
) -> Tensor:
    """Drops entries of each delta at random, scales up the rest, and adds them.

    `convention: mergekit` restores each tensor's L1 norm; `paper` divides by the density, which is unbiased.
    `bits(t)` gives expert t's uniform numbers in [0, 1), keyed by seed, expert and tensor. Density 1 is exactly
    task arithmetic. deltas (T, *shape), density (T,).
    """
    known = known or dare_factors(whole(deltas, bits), density=density, rescale=rescale, convention=convention)
    kept = known(deltas, lambda x: drop_at_random(x, density.tolist(), bits))
    return lambda_ * weighted_sum(kept, weights, normalize=normalize)
