"""Settings that every method on deltas shares beside its own: the space it runs in and the shaper around it.

The order is: star on each expert, method in its space, shaper on the merged delta, scale lambda.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.decompose import SVD, real_rank, svd
from merging.method import WEIGHT, Choice, Knob, Method
from merging.shaper import Shaper
from merging.shapers import SHAPERS
from merging.spaces import SPACES, Space, full
from merging.spectral import Factors, Fold, dense

SHAPING: tuple[Knob, ...] = (
    replace(Choice(tuple(SPACES), "Space", "Coordinates in which the method runs."), key="space"),
    replace(Choice(("none", *SHAPERS), "Shaper", "Changes the strength of directions."), key="shaper"),
    *(knob for shaper in SHAPERS.values() for knob in shaper.knobs),
)


def shared_knobs(method: Method, base: str | None = "base") -> tuple[Knob, ...]:
    """The settings that a method reads beside its own knobs, in a recipe with this base (None: without one)."""
    weight = (WEIGHT,) if method.uses_weight else ()
    if method.space_with(base) == "weights":
        return weight
    return (*weight, *(knob for knob in SHAPING if knob.key != "space" or not (method.takes_base or method.calibrated)))


def is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether neither a space nor a shaper has a part in it."""
    return (settings.get("space", "full"), settings.get("shaper", "none")) == ("full", "none")


def enter(factors: Factors, settings: Mapping[str, Any]) -> Space:
    """The experts as the method sees them: shaped before the merge where the recipe says so, in the recipe's space."""
    shaper = SHAPERS.get(settings.get("shaper", "none"))
    if shaper is not None and shaper.sees == "expert":
        chosen = shaper.settings(settings)
        key = (shaper.id, factors.ids, tuple(chosen.values()))
        factors = factors.remember(key, lambda: _shaped_experts(factors, shaper, chosen))
    return SPACES.get(settings.get("space", "full"), full)(factors)


def after(settings: Mapping[str, Any]) -> Shaper | None:
    """The shaper of the merged delta, if the recipe has one."""
    found = SHAPERS.get(settings.get("shaper", "none"))
    return None if found is None or found.sees == "expert" else found


def shaped(
    shaper: Shaper,
    merged: Tensor | Fold,
    factors: Factors,
    weights: Tensor,
    settings: Mapping[str, Any],
    inputs: Inputs | None = None,
) -> Tensor | Fold:
    """The merged delta, before its scale lambda, as the shaper leaves it; what is rounding noise in it stays.

    inputs: of the experts in `factors`, for a calibrated shaper.
    """
    chosen = shaper.settings(settings) | ({"inputs": inputs or Inputs()} if shaper.calibrated else {})
    experts = factors.times(weights / weights.abs().mean().clamp(min=1e-30))
    if shaper.sees == "matrix":
        return shaper(dense(merged), experts, **chosen)
    triplets = merged.svd() if isinstance(merged, Fold) else svd(merged)
    real = triplets.head(real_rank(triplets.s, max(factors.deltas.shape[1:]) ** 0.5, factors.sum_noise(weights)))
    if len(real.s) == 0:
        return merged
    strengths = shaper(real, experts, **chosen)
    if isinstance(merged, Fold):
        s = torch.cat([strengths, triplets.s[len(strengths) :]])
        return replace(merged, u=triplets.u, x=s, v=triplets.v, core=None, strengths=None)
    return merged + (real.u * (strengths - real.s)) @ real.v.T


def _shaped_experts(factors: Factors, shaper: Shaper, settings: Mapping[str, Any]) -> Factors:
    low = []
    for t in range(len(factors.deltas)):
        part = factors.real(t)
        s = shaper(part, factors, **settings) if len(part.s) else part.s
        part = SVD(part.u[:, s > 0], s[s > 0], part.v[:, s > 0])
        low.append(tuple(x.to(factors.deltas.dtype) for x in (part.u * part.s, part.v.T)))
    return Factors(torch.stack([b @ a for b, a in low]), 0.0, factors.ids, tuple(low), factors.full_rank)
