from typing import Annotated

from torch import Tensor

from merging.method import Number, Paper, merge_method
from merging.ops import column


@merge_method(
    title="Passthrough",
    paper=Paper("Arcee's MergeKit", "2403.13257", 2024),
    space="weights",
    experts=(1, 1),
    uses_weight=False,
    blocks="flat",
)
def passthrough(
    models: Tensor,
    weights: Tensor,
    *,
    scale: Annotated[
        Tensor,
        Number(-2.0, 2.0, 0.05, 1.0, "Scale", "Multiplies every entry.", strict=False, per_expert=True, first=True),
    ],
) -> Tensor:
    """Copies one model, scaled if wished.

    `scale * W` over (1, *shape); `{filter, value}` scales some tensors only. The base takes no part.
    """
    return (column(scale.to(models), models) * models)[0]
