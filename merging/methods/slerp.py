import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from merging.blocks import Blocks, Everywhere, total, whole
from merging.method import Number, Paper, merge_method
from merging.ops import weighted_sum


@dataclass(frozen=True)
class Ends(Everywhere):
    """How much of each end goes in."""

    shares: tuple[float, float]


def ends(blocks: Blocks, *, t: float, **_: object) -> Ends:
    (first, product), (_, second) = total(blocks, lambda a, b, x: x.flatten(1) @ x.flatten(1).T).tolist()
    norms = math.sqrt(first * second)
    cosine = product / norms if norms > 0 else 1.0
    if abs(cosine) > 0.9995:
        return Ends((1 - t, t))
    angle = math.acos(cosine)
    return Ends((math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)))


@merge_method(
    title="SLERP",
    paper=Paper("Arcee's MergeKit", "2403.13257", 2024),
    space="weights",
    experts=(2, 2),
    uses_weight=False,
    base_first=True,
    blocks="flat",
    measure=ends,
    version=2,
)
def slerp(
    models: Tensor,
    weights: Tensor,
    *,
    t: Annotated[
        float,
        Number(0.0, 1.0, 0.05, 0.5, "Position t", "0 is the base or first model, 1 the other.", first=True),
    ],
    known: Ends | None = None,
) -> Tensor:
    """Walks along the arc between two models instead of the straight line.

    Angle between the flattened models (2, *shape); un-normalised end points; a straight line where the cosine's
    magnitude exceeds 0.9995, as in mergekit (experts of one base usually lie closer than that). The base model is
    the end t = 0. mergekit requires `t`; an omitted one means 0.5 here. Formula: Shoemake,
    SIGGRAPH 1985.
    """
    known = known or ends(whole(models), t=t)
    return weighted_sum(models, torch.tensor(known.shares, dtype=models.dtype), normalize=False)
