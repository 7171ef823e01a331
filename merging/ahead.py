"""Where a rank slider may go next."""

from collections.abc import Iterator
from dataclasses import replace

from merging.plan import Plan
from merging.recipe import Recipe
from merging.shaping import shared_knobs


def neighbours(old: Plan | None, new: Plan) -> tuple[Recipe, ...]:
    """After a step of a number that makes folds stale: the recipes one stop on, its own way first."""
    if old is None or old.method is not new.method or not new.method.spectral:
        return ()
    return tuple(_beside(dict(old.recipe.parameters), new))


def _beside(before: dict, new: Plan) -> Iterator[Recipe]:
    now = dict(new.recipe.parameters)
    for knob in (*new.method.knobs, *shared_knobs(new.method, new.recipe.base)):
        was, value = before.get(knob.key, knob.default), now.get(knob.key, knob.default)
        if knob.kind != "number" or knob.moves != "fold" or not isinstance(value, int | float) or value == was:
            continue
        on = knob.step if not isinstance(was, int | float) or value > was else -knob.step
        for stop in (round(value + on, 9), round(value - on, 9)):
            if knob.low <= stop <= knob.high:
                yield replace(new.recipe, parameters=tuple((now | {knob.key: stop}).items()))
