from typing import Annotated

from torch import Tensor

from merging.arcs import arc
from merging.method import Paper, Switch, merge_method


@merge_method(
    title="NuSLERP",
    paper=Paper("Arcee's MergeKit", "2403.13257", 2024),
    space="either",
    experts=(2, 2),
    keeps_zero=True,
)
def nuslerp(
    stack: Tensor,
    weights: Tensor,
    *,
    nuslerp_flatten: Annotated[bool, Switch(True, "Whole tensor", "One arc for the tensor, or one per row.")],
    nuslerp_row_wise: Annotated[bool, Switch(False, "First axis", "Arcs along the first axis, not the last.")],
) -> Tensor:
    """Walks along the arc between two experts' deltas, or two models, by their weights.

    The point w_2 / (w_1 + w_2) of the arc (the middle where the weights sum to 0) over (2, *shape): of the deltas where
    the recipe has a base, else of the models. Without `nuslerp_flatten` every vector along the last axis has an arc
    of its own, with `nuslerp_row_wise` along the first one. No straight line above cosine 0.9995, unlike `slerp`.
    """
    total = float(weights.sum())
    t = float(weights[1]) / total if abs(total) > 1e-8 else 0.5
    if nuslerp_flatten or stack.dim() < 3:
        flat = stack.reshape(2, -1)
        return arc(flat[0], flat[1], t).view(stack.shape[1:])
    return arc(stack[0], stack[1], t, 0 if nuslerp_row_wise else -1)
