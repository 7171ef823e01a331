from typing import Annotated

from torch import Tensor

from merging.blocks import Blocks, whole
from merging.masks import Trim, find_trim
from merging.method import Lambda, Number, Paper, Switch, merge_method
from merging.ops import elected_sum

DENSITY = Number(
    0.0, 1.0, 0.05, 1.0, "Density", "Share of largest entries kept.", screen=0.2, per_expert=True, first=True
)


def trim(blocks: Blocks, *, density: Tensor, rescale: bool, **_: object) -> Trim:
    return find_trim(blocks, density, rescale=rescale, at_least=1)


@merge_method(
    title="TIES",
    paper=Paper("TIES-Merging: Resolving Interference When Merging Models", "2306.01708", 2023),
    blocks="flat",
    measure=trim,
    magnitudes=True,
    version=2,
)
def ties(
    deltas: Tensor,
    weights: Tensor,
    *,
    density: Annotated[Tensor, DENSITY],
    lambda_: Annotated[float, Lambda()],
    rescale: Annotated[bool, Switch(False, "Rescale", "Make up for the dropped entries.")],
    normalize: Annotated[bool, Switch(True, "Normalize", "Mean instead of sum of those that agree.")],
    known: Trim | None = None,
) -> Tensor:
    """Keeps each delta's largest entries, elects a sign per weight, and merges only those that agree.

    Per tensor, as mergekit: `int(density * n)` entries stay (ties: lowest index first), the sign of `sum w_t D_t`
    wins (a sum of 0 elects +), and agreeing entries are averaged by weight. `rescale` restores each trimmed delta's L1
    norm. The paper trims over the whole model at once and knows no weights. deltas (T, *shape), density (T,).
    """
    known = known or trim(whole(deltas), density=density, rescale=rescale)
    return lambda_ * elected_sum(known(deltas), weights, normalize=normalize)
