from typing import Annotated

from torch import Tensor

from merging.blocks import Blocks, whole
from merging.masks import Trim, find_trim
from merging.method import Lambda, Number, Paper, Switch, merge_method
from merging.ops import weighted_sum

DENSITY = Number(0.0, 1.0, 0.05, 1.0, "Density", "Share of entries kept.", screen=0.9, per_expert=True, first=True)
GAMMA = Number(
    0.0, 1.0, 0.01, 0.01, "Outliers γ", "Share of largest entries dropped first.", per_expert=True, first=True
)
RESCALE = Switch(False, "Rescale", "Make up for the dropped entries.")
PAPER = Paper("Model Breadcrumbs", "2312.06795", 2023)


def trim(blocks: Blocks, *, density: Tensor, gamma: Tensor, rescale: bool, **_: object) -> Trim:
    return find_trim(blocks, density, gamma, rescale=rescale)


@merge_method(title="Breadcrumbs", paper=PAPER, blocks="flat", measure=trim, magnitudes=True)
def breadcrumbs(
    deltas: Tensor,
    weights: Tensor,
    *,
    density: Annotated[Tensor, DENSITY],
    gamma: Annotated[Tensor, GAMMA],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(False, "Normalize", "Divide by the sum of the weights.")],
    known: Trim | None = None,
) -> Tensor:
    """Drops the largest and the smallest entries of each delta, and adds the rest.

    Per tensor: without the `int(gamma n)` largest magnitudes, then the `int(density n)` largest of the rest; gamma is
    the paper's beta. At density 1 nothing is dropped. Some mergekits lose the whole delta where `int(gamma n)` is 0;
    here nothing is cut at the top then. deltas (T, *shape), density and gamma (T,).
    """
    known = known or trim(whole(deltas), density=density, gamma=gamma, rescale=rescale)
    return lambda_ * weighted_sum(known(deltas), weights, normalize=normalize)
