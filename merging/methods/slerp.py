from typing import Annotated

import torch
from torch import Tensor

from merging.method import Number, Paper, merge_method


@merge_method(
    title="SLERP",
    paper=Paper("Arcee's MergeKit", "2403.13257", 2024),
    space="weights",
    experts=(2, 2),
    uses_weight=False,
    base_first=True,
)
def slerp(
    models: Tensor,
    weights: Tensor,
    *,
    t: Annotated[
        float,
        Number(0.0, 1.0, 0.05, 0.5, "Position t", "0 is the base or first model, 1 the other.", first=True),
    ],
) -> Tensor:
    """Walks along the arc between two models instead of the straight line.

    Angle between the flattened models (2, *shape); un-normalised end points; a straight line where the cosine's
    magnitude exceeds 0.9995, as in mergekit (experts of one base usually lie closer than that). The base model is
    the end t = 0. mergekit requires `t`; an omitted one means 0.5 here. Formula: Shoemake,
    SIGGRAPH 1985.
    """
    first, second = models[0], models[1]
    norms = first.norm() * second.norm()
    cosine = (first * second).sum() / norms if norms > 0 else torch.ones(())
    if cosine.abs() > 0.9995:
        return (1 - t) * first + t * second
    angle = torch.arccos(cosine)
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)
