from torch import Tensor

from merging.method import Paper, merge_method
from merging.ops import weighted_sum


@merge_method(
    title="Rewarded soup",
    paper=Paper("Rewarded soups: towards Pareto-optimal alignment", "2306.04488", 2023),
    space="weights",
    shares=True,
    blocks="flat",
)
def rewarded_soup(models: Tensor, weights: Tensor) -> Tensor:
    """Blends experts of different rewards by shares; sweeping the shares draws the trade-off between them.

    `sum s_t W_t` over (T, *shape) with `s = w / sum w`: a point of the simplex. Weights need not sum to 1; the plan
    refuses negative ones, and all of them 0.
    """
    return weighted_sum(models, weights / weights.sum(), normalize=False)
