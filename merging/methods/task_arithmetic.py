from typing import Annotated

from torch import Tensor

from merging.method import Lambda, Paper, Switch, merge_method
from merging.ops import weighted_sum


@merge_method(title="Task arithmetic", paper=Paper("Editing Models with Task Arithmetic", "2212.04089", 2022),
              blocks="flat")  # fmt: skip
def task_arithmetic(
    deltas: Tensor,
    weights: Tensor,
    *,
    lambda_: Annotated[float, Lambda(screen=0.5)],
    normalize: Annotated[bool, Switch(False, "Normalize", "Divide by the sum of the weights.")],
) -> Tensor:
    """Adds the experts' deltas to the base.

    `lambda sum w_t D_t` over deltas (T, *shape).
    """
    merged = weighted_sum(deltas, weights, normalize=normalize)
    return merged if lambda_ == 1 else merged.mul_(lambda_)
