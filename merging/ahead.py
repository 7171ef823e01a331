"""Where a rank slider may go next."""

from collections.abc import Iterator
from dataclasses import replace

from merging.method import Knob
from merging.plan import Plan
from merging.recipe import Expert, Recipe
from merging.shaping import is_plain, shared_knobs


def stops(old: Plan | None, new: Plan, *, everywhere: bool) -> Iterator[Recipe]:
    """The other stops of the slider that a step moved, where it makes folds stale: the next on its way, the one behind,
    and `everywhere` all others, nearest first; then also those of the method's first such slider where none was moved.

    Each with weights and scales at 1, which no fold hangs on: another weight names the same ones.
    """
    if not new.method.spectral:
        return
    sliders = [knob for knob in (*new.method.knobs, *shared_knobs(new.method, new.recipe.base)) if _folds(knob)]
    now = dict(new.recipe.parameters)
    before = dict(old.recipe.parameters) if old and old.method is new.method else now
    moved = [k for k in sliders if before.get(k.key, k.default) != now.get(k.key, k.default)]
    wide = everywhere and all(is_plain(tensor.settings) for tensor in new.tensors)
    for knob in moved or (sliders[:1] if wide else ()):
        value, was = (settings.get(knob.key, knob.default) for settings in (now, before))
        if isinstance(value, int | float):
            back = isinstance(was, int | float) and was > value
            for stop in _beside(knob, value, -knob.step if back else knob.step, wide):
                yield _bare(new, now | {knob.key: stop})


def _folds(knob: Knob) -> bool:
    return knob.kind == "number" and knob.moves == "fold"


def _beside(knob: Knob, value: float, step: float, wide: bool) -> Iterator[float]:
    for i in range(1, 1 + round((knob.high - knob.low) / knob.step) if wide else 2):
        for stop in (round(value + i * step, 9), round(value - i * step, 9)):
            if knob.low <= stop <= knob.high:
                yield stop


def _bare(plan: Plan, parameters: dict) -> Recipe:
    scales = {knob.key for knob in plan.method.knobs if knob.moves == "diagonal"}
    kept = tuple((key, parameters[key]) for key in sorted(parameters) if key not in scales)
    return replace(plan.recipe, parameters=kept, experts=tuple(map(_unweighed, plan.recipe.experts)), name="", note="")


def _unweighed(expert: Expert) -> Expert:
    """One that is left out stays so."""
    own = dict(expert.parameters)
    plain = isinstance(own.get("weight"), int | float) and own["weight"] != 0
    return replace(expert, parameters=tuple((own | {"weight": 1.0} if plain else own).items()))
