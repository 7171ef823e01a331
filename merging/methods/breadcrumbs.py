from typing import Annotated

from torch import Tensor

from merging.masks import drop_extremes_each
from merging.method import Lambda, Number, Paper, Switch, merge_method
from merging.ops import weighted_sum

DENSITY = Number(0.0, 1.0, 0.05, 1.0, "Density", "Share of entries kept.", screen=0.9, per_expert=True, first=True)
GAMMA = Number(
    0.0, 1.0, 0.01, 0.01, "Outliers γ", "Share of largest entries dropped first.", per_expert=True, first=True
)
RESCALE = Switch(False, "Rescale", "Make up for the dropped entries.")
PAPER = Paper("Model Breadcrumbs", "2312.06795", 2023)


@merge_method(title="Breadcrumbs", paper=PAPER)
def breadcrumbs(
    deltas: Tensor,
    weights: Tensor,
    *,
    density: Annotated[Tensor, DENSITY],
    gamma: Annotated[Tensor, GAMMA],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    rescale: Annotated[bool, RESCALE],
    normalize: Annotated[bool, Switch(False, "Normalize", "Divide by the sum of the weights.")],
) -> Tensor:
    """Drops the largest and the smallest entries of each delta, and adds the rest.

    Per tensor: without the `int(gamma n)` largest magnitudes, then the `int(density n)` largest of the rest; gamma is
    the paper's beta. At density 1 nothing is dropped. Some mergekits lose the whole delta where `int(gamma n)` is 0;
    here nothing is cut at the top then. deltas (T, *shape), density and gamma (T,).
    """
    kept = drop_extremes_each(deltas, density, gamma, rescale=rescale)
    return lambda_ * weighted_sum(kept, weights, normalize=normalize)
