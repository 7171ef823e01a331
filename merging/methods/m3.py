from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from merging.method import Number, Paper, merge_method
from merging.ops import weighted_sum


def shares(bits: Sequence[Tensor], alpha: float) -> Tensor:
    """What each model gets for its number in [0, 1), in all 1: float64 (T,)."""
    draws = torch.stack([_gamma_quantile(one, alpha) for one in bits])
    return draws / draws.sum()


def _gamma_quantile(u: Tensor, shape: float) -> Tensor:
    """The float64 number x where Gamma(shape) has the probability `u` (float32 in [0, 1)) below it, by bisection."""
    wanted = u.double() + 2.0**-25  # the middle of its float32 step: never 0
    low, high = torch.full_like(wanted, -400.0), torch.full_like(wanted, 5.0)  # of log x
    for _ in range(60):
        middle = (low + high) / 2
        below = torch.special.gammainc(torch.full_like(wanted, shape), middle.exp()) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high.exp()


@merge_method(
    title="Mixup Model Merge (M3)",
    paper=Paper("Mixup Model Merge", "2502.15434", 2025),
    space="weights",
    experts=(2, 64),
    uses_weight=False,
    random=True,
    draws=shares,
)
def m3(
    models: Tensor,
    weights: Tensor,
    *,
    bits: Callable[..., Tensor],
    alpha: Annotated[
        float, Number(0.1, 5.0, 0.1, 0.5, "Mixing α", "Low: mostly one model; high: equal parts.", first=True)
    ],
) -> Tensor:
    """Averages the models by shares drawn at random: change the seed for another mix.

    Beta(alpha, alpha) for two models, Dirichlet(alpha) for more, as normalised Gamma(alpha) draws: one a model for the
    whole merge, keyed by seed and model, so that order and tensor do not matter. models (T, *shape).
    """
    found = shares([bits(t, once=True) for t in range(len(models))], alpha)
    return weighted_sum(models, found.to(models), normalize=False)
