from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from merging.blocks import whole
from merging.masks import Pruned, drop_by_rank, prune
from merging.method import Choice, Lambda, Number, Paper, Switch, merge_method
from merging.ops import weighted_sum

DENSITY = Number(0.0, 1.0, 0.05, 1.0, "Density", "Mean share of entries kept.", screen=0.5, per_expert=True, first=True)
EPSILON = Number(0.0, 0.5, 0.01, 0.15, "Spread ε", "How much larger entries are favoured.", per_expert=True, first=True)
RESCALE = Switch(True, "Rescale", "Make up for the dropped entries.")
CONVENTION = Choice(("mergekit", "paper"), "Convention", "Rescale by L1 norm, or by each chance.", screen="paper")
PAPER = Paper("DELLA-Merging: Magnitude-Based Sampling", "2406.11617", 2024)


@merge_method(title="DELLA linear", paper=PAPER, random=True, blocks="rows", measure=prune, version=2)
def della_linear(
    deltas: Tensor,
    weights: Tensor,
    *,
    bits: Callable[..., Tensor],
    density: Annotated[Tensor, DENSITY],
    epsilon: Annotated[Tensor, EPSILON],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(False, "Normalize", "Divide by the sum of the weights.")],
    convention: Annotated[str, CONVENTION],
    known: Pruned | None = None,
) -> Tensor:
    """Drops small entries of each delta more often than large ones, and adds the rest.

    An entry's chance to stay rises with its rank in its row from density - epsilon to density + epsilon. `convention:
    mergekit` restores the L1 norm, so large entries weigh more; `paper` divides each survivor by its own chance,
    which is unbiased. Chances outside 0..1 are clipped (mergekit refuses them); a row of one entry has the chance
    `density` (mergekit drops it). Density 1 is task arithmetic. deltas (T, *shape), density and epsilon (T,).
    """
    if known is None:
        knobs = {"density": density, "epsilon": epsilon, "rescale": rescale, "convention": convention}
        known = prune(whole(deltas, bits, rows=True), **knobs)
    divide = rescale and convention == "paper"
    kept = known(deltas, lambda x: drop_by_rank(x, density, epsilon, bits, divide=divide))
    return lambda_ * weighted_sum(kept, weights, normalize=normalize)
