from typing import Annotated

from torch import Tensor

from merging.method import Number, Paper, Switch, merge_method


@merge_method(title="Multi-SLERP", paper=Paper("Arcee's MergeKit", "2403.13257", 2024), space="either")
def multislerp(
    stack: Tensor,
    weights: Tensor,
    *,
    normalize_weights: Annotated[bool, Switch(True, "Normalize", "Divide the weights by their sum.")],
    eps: Annotated[float, Number(0.0, 0.001, 1e-6, 1e-8, "Floor ε", "Added to norms; a shorter mean counts as 0.")],
) -> Tensor:
    """Averages the directions of any number of experts, and their lengths apart.

    `sum w_t |x_t| * normalise(sum w_t x_t / (|x_t| + eps))` over (T, *shape), deltas where the recipe has a base, else
    models: the tangent step of the published form is zero at that very mean. For two unequal weights this is not
    SLERP. Where the mean direction is 0 the weighted mean stands in (mergekit refuses that for three or more).
    """
    flat = stack.reshape(len(stack), -1)
    w = weights / weights.sum() if normalize_weights and weights.sum() != 0 else weights
    norms = flat.norm(dim=1)
    mean = (w / (norms + eps).clamp(min=1e-38)) @ flat
    length = mean.norm()
    merged = w @ flat if length <= eps else (w @ norms) * mean / length
    return merged.view(stack.shape[1:])
