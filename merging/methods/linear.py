from typing import Annotated

from torch import Tensor

from merging.method import Paper, Switch, merge_method
from merging.ops import weighted_sum


@merge_method(title="Linear (model soup)", paper=Paper("Model soups", "2203.05482", 2022), space="weights",
              blocks="flat")  # fmt: skip
def linear(
    models: Tensor,
    weights: Tensor,
    *,
    normalize: Annotated[bool, Switch(True, "Normalize", "Divide by the sum of the weights.")],
) -> Tensor:
    """Averages the models themselves, each by its weight.

    `sum w_t W_t / sum w_t` over (T, *shape). The base takes part only if the recipe lists it among the models.
    Weights that sum to 0 cannot be normalised: the plan refuses them.
    """
    return weighted_sum(models, weights, normalize=normalize)
