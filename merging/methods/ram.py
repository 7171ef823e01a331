from typing import Annotated

from torch import Tensor

from merging.masks import changed
from merging.method import Number, Paper, merge_method

EPSILON = Number(0.0, 0.001, 1e-6, 1e-5, "Threshold ε", "Smaller entries count as unchanged.", strict=False, first=True)
PAPER = Paper("Behavior Knowledge Merge in Reinforced Agentic Models (RAM)", "2601.13572", 2026)


@merge_method(title="RAM", paper=PAPER, uses_weight=False)
def ram(deltas: Tensor, weights: Tensor, *, epsilon: Annotated[float, EPSILON]) -> Tensor:
    """Keeps what one expert alone changed, and averages what several changed.

    An entry counts as changed where `|D_t| > epsilon`; the mean is over the experts that changed it. Made for
    experts trained by reinforcement, whose deltas are sparse. deltas (T, *shape).
    """
    moved, by = changed(deltas, epsilon)
    return (deltas * moved).sum(0) / by.clamp(min=1)
