import torch
from torch import Tensor

from merging.method import Paper, merge_method


@merge_method(
    title="Arcee Fusion",
    paper=Paper("Arcee's MergeKit", "2403.13257", 2024),
    space="weights",
    experts=(2, 2),
    uses_weight=False,
    base_first=True,
)
def arcee_fusion(models: Tensor, weights: Tensor) -> Tensor:
    """Takes from the other model only the entries whose change matters most, and keeps the base elsewhere.

    Importance = |W_1 - W_0| times the divergence KL(softmax W_1 || softmax W_0) of its row (last axis); entries at or
    above median + 1.5 interquartile range are taken (quantiles: the lower of two neighbours). models (2, *shape), the
    base or first model W_0. In float32 the divergence of close rows is mostly rounding, as in mergekit, whose numbers
    these are up to single entries at the threshold.
    """
    base, other = models[0], models[1]
    rows = other.softmax(-1), base.softmax(-1)
    divergence = torch.xlogy(rows[0], rows[0] / rows[1].clamp(min=1e-38)).sum(-1, keepdim=other.dim() > 0)
    importance = (other - base).abs() * divergence
    flat = importance.flatten()
    first, middle, third = (flat.kthvalue(int(q * (flat.numel() - 1)) + 1).values for q in (0.25, 0.5, 0.75))
    return torch.where(importance >= middle + 1.5 * (third - first), other, base)
