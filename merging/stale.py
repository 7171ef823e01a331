from collections.abc import Mapping
from typing import Any, Literal

from merging.method import Knob
from merging.plan import Plan
from merging.shaping import shared_knobs

What = Literal["nothing", "diagonal", "fold", "factors", "tensors"]


def stale(old: Plan | None, new: Plan) -> What:
    """What the step from one plan to the next invalidates: a pure function of the two plans' settings."""
    if old is not None and old.digest == new.digest:
        return "nothing"
    if old is None or old.method is not new.method or not new.method.spectral:
        return "tensors"
    if [e.fingerprint for e in old.experts] != [e.fingerprint for e in new.experts]:
        return "factors"
    found: set[What] = {"diagonal"}
    knobs = {knob.key: knob for knob in (*new.method.knobs, *shared_knobs(new.method, new.recipe.base))}
    for before, after in zip(old.tensors, new.tensors, strict=True):
        if [w == 0 for w in before.weights] != [w == 0 for w in after.weights]:
            found.add("fold")
        moved = (key for key, value in after.settings.items() if before.settings.get(key) != value and key in knobs)
        found |= {_moves(knobs[key], before.settings, after.settings) for key in moved}
    return "factors" if "factors" in found else "fold" if "fold" in found else "diagonal"


def _moves(knob: Knob, *settings: Mapping[str, Any]) -> What:
    if knob.scales and all(one[knob.scales[0]] in knob.scales[1:] for one in settings):
        return "diagonal"
    return knob.moves
