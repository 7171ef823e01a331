"""What the settings of a recipe mean to its method: names, ranges, and the value for one tensor."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from merging.chat_templates import NAMED
from merging.errors import Fix, UserError
from merging.method import Knob, Method, Value
from merging.methods import METHODS
from merging.recipe import Recipe
from merging.recipe_form import mend_key
from merging.shaping import SHAPING, shared_knobs
from merging.values import Case, Setting, Settings, resolve
from merging.words import nearest, nearest_name, shown

ACCEPTED = ("int8_mask",)  # mergekit's memory switch: it changes no number, so it is taken and ignored
KEPT_TEMPLATE = (None, "auto", "base")  # values of `chat_template` that mean the tokenizer's own


def setting_problems(recipe: Recipe, method: Method, notices: list[str]) -> Iterator[UserError]:
    knobs = {knob.key: knob for knob in (*method.knobs, *shared_knobs(method, recipe.base))}
    shaping = {knob.key for knob in SHAPING}
    elsewhere = {knob.key for other in METHODS.values() for knob in other.knobs} | {"weight", *shaping, *ACCEPTED}
    scopes: list[tuple[str, Settings, tuple]] = [("parameters", recipe.parameters, ("parameters",))]
    if not recipe.slices:
        scopes += [(f"models, {e.name}", e.parameters, ("models", i, "parameters"))
                   for i, e in enumerate(recipe.experts)]  # fmt: skip
    for i, part in enumerate(recipe.slices):
        scopes.append((f"slice {i + 1}", part.parameters, ("slices", i, "parameters")))
        scopes += [(f"slice {i + 1}, {s.name}", s.parameters, ("slices", i, "sources", j, "parameters"))
                   for j, s in enumerate(part.sources)]  # fmt: skip
    for place, settings, at in scopes:
        of_expert = at[-3:-2] in (("models",), ("sources",))
        for key, value in settings:
            knob = knobs.get(key)
            if knob and (knob.per_expert or not of_expert):
                for leaf in _leaves(knob, value):
                    fault = _domain_fault(knob, leaf)
                    if fault:
                        fix = _valid(knob, value, (*at, key))
                        yield UserError("E_SETTING", fault, where=f"{place}, {key}", fix=fix)
            elif knob:
                notices.append(f"{place}: `{key}` is a setting of the whole merge; it has no effect on one model.")
            elif key in ACCEPTED:
                continue
            elif key in shaping:
                own = method.takes_base or method.calibrated
                why = "needs the base's own coordinates" if own else "merges the models, not their deltas"
                notices.append(f"{place}: `{key}` has no effect: `{method.id}` {why}.")
            elif key in elsewhere:
                notices.append(f"{place}: `{key}` is a setting of other methods; `{method.id}` does not read it.")
            else:
                own = [k for k in knobs if k not in shaping]
                hint = nearest(key, [*knobs, *elsewhere]) or f"It has: {', '.join(own) or 'none'}."
                fix = mend_key((*at, key), [*knobs, *elsewhere])
                yield UserError("E_KEY", f"`{method.id}` has no setting {shown(key)}.", where=place, do=hint, fix=fix)


def text_problems(recipe: Recipe) -> Iterator[UserError]:
    """What is wrong with the chat template."""
    template = recipe.chat_template
    if template not in (*KEPT_TEMPLATE, *NAMED) and "{{" not in template and "{%" not in template:
        near = nearest(template, NAMED) or "Leave it out to keep the base's own, or write a Jinja template."
        yield UserError("E_TEMPLATE", f"{shown(template)} is not a chat template", where="chat_template", do=near,
                        fix=Fix("Keep the base's template", "drop", ("chat_template",)))  # fmt: skip


def _leaves(knob: Knob, value: Setting) -> Iterator[Any]:
    """The single values in a setting; a list of words is one value where the method takes one word."""
    if isinstance(value, tuple) and value and (knob.kind != "choice" or isinstance(value[0], Case)):
        for item in value:
            yield from _leaves(knob, item.value if isinstance(item, Case) else item)
    else:
        yield value


def _domain_fault(knob: Knob, value: Any) -> str:
    """What is wrong with one value of a setting, or nothing."""
    if knob.kind == "switch":
        return (
            ""
            if value in (True, False) and isinstance(value, (bool, int, float))
            else f"{shown(value)} is not true or false"
        )
    if knob.kind == "choice":
        return "" if value in knob.choices else f"{shown(value)} is none of {', '.join(knob.choices)}"
    if knob.kind == "globs":
        fits = isinstance(value, str) or value == ()
        return "" if fits else f'{shown(value)} is not a name pattern such as "*embed*"'
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{'empty' if value in (None, ()) else shown(value)}, but must be a number"
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        finite = False
    if not finite:
        return f"{shown(value)} is not a usable number"
    if knob.strict and not knob.low <= value <= knob.high:
        return f"{shown(value)} lies outside {knob.low:g} to {knob.high:g}"
    return ""


def _valid(knob: Knob, value: Setting, at: tuple) -> Fix:
    """The nearest value that the setting takes; where none is near, its default by leaving it out."""
    if isinstance(value, (int, float)) and knob.kind == "number" and knob.strict and abs(value) < math.inf:
        bound = min(max(value, knob.low), knob.high)
        return Fix(f"Use {bound:g}", "set", at, bound)
    near = nearest_name(value, knob.choices) if isinstance(value, str) else ""
    return Fix(f"Use {near}", "set", at, near) if near else Fix(f"Use {knob.key}'s default", "drop", at)


def setting_value(knob: Knob, scopes: Collection[Mapping[str, Setting]], tensor: str, depth: float) -> Any:
    """The narrowest scope that says something about this tensor wins; else the default."""
    for scope in scopes:
        value = resolve(scope.get(knob.key), tensor, depth)
        if value is not None:
            return _as_kind(knob, value)
    return knob.default


def _as_kind(knob: Knob, value: Any) -> Value:
    if knob.kind == "switch":
        return bool(value)
    if knob.kind == "globs":
        return (value,) if isinstance(value, str) else tuple(value)
    return value


def canonical(settings: Settings) -> list:
    return sorted([key, _canonical_value(value)] for key, value in settings)


def _canonical_value(value: Setting | Case) -> Any:
    if isinstance(value, tuple):
        return [_canonical_value(item) for item in value]
    if isinstance(value, Case):
        return asdict(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
