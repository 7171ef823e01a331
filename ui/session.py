"""What one page holds: a small frozen Session and the pure steps from one to the next. Knows nothing of Gradio.

The recipe in it is the truth. Sliders show one number a setting; a setting that a slider cannot show (a list over
depth, cases by tensor name) stays as written until its slider is moved.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from eval.running.chat import BESIDE
from merging.errors import UserError
from merging.look import Measure
from merging.method import WEIGHT, Knob, Method, Value
from merging.methods import METHODS
from merging.recipe import Expert, Lock, Recipe
from merging.shaping import SHAPING, shared_knobs
from merging.stage import without_idle
from merging.values import Setting, Settings, value_of

MAX_EXPERTS = 6
Row = Literal["kept", "mass", "weight"]
Quantity = Literal["strength", "energy"]
Scope = Literal["matrix", "layer", "kind"]  # how far around the open matrix a lock reaches
_MAX_UNDO = 40
_EYES = ("tab", "measure", "pair", "quantity", "row", "first", "tables", "focus", "scope")  # of a Session


@dataclass(frozen=True)
class Desk:
    """What the controls say: a value for each knob, of a per-expert knob (such as weight) one for each expert."""

    method: str
    knobs: Mapping[str, Value]
    per_expert: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Session:
    """`id` names this page load to the worker; `owner` is the browser, which keeps its jobs over a reload."""

    recipe: Recipe
    owner: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    tab: str = "map"
    measure: Measure = "sign"
    pair: int = 0
    quantity: Quantity = "strength"  # what the curves of Spectra show
    row: Row = "kept"  # what the lower row of Spectra shows
    first: int = 0  # the expert it begins with
    tables: frozenset[str] = frozenset()  # tabs whose tables are open; closed ones are not filled: it takes 0.1 s
    focus: str | None = None  # the open matrix, by tensor name
    scope: Scope = "matrix"
    past: tuple[Recipe, ...] = ()
    touched: str = ""  # what moved last: a whole drag is one step of undo


def recipe_of(session: Session) -> Recipe:
    """What is merged. A method that takes fewer experts than there are gets the first ones whose weight is not 0."""
    recipe, method = session.recipe, METHODS[session.recipe.method]
    most = method.experts[1] - method.base_first
    if len(recipe.experts) <= most:
        return recipe
    chosen = [e for e in recipe.experts if value_of(_find(e.parameters, "weight", recipe.parameters), 1.0) != 0]
    experts = tuple((chosen or list(recipe.experts))[:most])
    left_out = {e.model for e in recipe.experts} - {e.model for e in experts}
    locks = tuple(lock for lock in recipe.locks if lock.to not in left_out)
    return without_idle(replace(recipe, experts=experts, locks=locks))


def desk_of(recipe: Recipe) -> Desk:
    """What the controls should say of a recipe."""
    method = METHODS[recipe.method]
    whole = [k for k in settings_of(method) if not k.per_expert]
    knobs = {k.key: value_of(_find(recipe.parameters, k.key), k.default) for k in whole}
    keys = {"weight": 1.0} | {k.key: k.default for k in method.knobs if k.per_expert}
    per_expert = {
        key: tuple(_number(value_of(_find(e.parameters, key, recipe.parameters), default)) for e in recipe.experts)
        for key, default in keys.items()
    }
    return Desk(recipe.method, knobs, per_expert)


def settings_of(method: Method) -> tuple[Knob, ...]:
    """Its own knobs, then those that it shares with others (space and shaper)."""
    return (*method.knobs, *(knob for knob in shared_knobs(method) if knob is not WEIGHT))


def fresh_recipe(method: Method, base: str, experts: tuple[str, ...], folder: Path) -> Recipe:
    """A new recipe with every knob written out at the value the page starts from."""
    own = tuple((k.key, k.screen) for k in method.knobs if k.per_expert)
    return Recipe(
        method=method.id,
        base=base,
        experts=tuple(Expert(model, (("weight", 1.0), *own)) for model in experts),
        parameters=tuple((k.key, k.screen) for k in method.knobs if not k.per_expert),
        folder=folder,
    )


def moved(session: Session, desk: Desk) -> Session:
    """The session after the controls have changed; the same object when they say what the recipe says."""
    recipe = session.recipe
    before = desk_of(recipe)
    changed = [key for key, value in desk.knobs.items() if not _same(value, before.knobs.get(key))]
    changed += [key for key, values in desk.per_expert.items() if not _same(values, before.per_expert.get(key))]
    if not changed:
        return session
    return _step(session, _write(recipe, desk, changed), " ".join(changed))


def looking(session: Session, at: Session) -> Session:
    """The session with its eyes where those of `at` are: tab, pickers, open matrix."""
    return replace(session, **{name: getattr(at, name) for name in _EYES})


def with_method(session: Session, method: str) -> Session:
    """Another method: weights, space and shaper stay, its own knobs stand where this page left them last."""
    recipe, chosen = session.recipe, METHODS[method]
    same = (old for old in reversed(session.past) if old.method == method and old.sources == recipe.sources)
    fresh = fresh_recipe(chosen, recipe.base or "", tuple(e.model for e in recipe.experts), recipe.folder)
    left, now = desk_of(next(same, fresh)), desk_of(recipe)
    kept = {knob.key for knob in SHAPING} & now.knobs.keys()
    knobs = {key: now.knobs[key] if key in kept else value for key, value in left.knobs.items()}
    desk = Desk(method, knobs, {**left.per_expert, "weight": now.per_expert["weight"]})
    return _step(session, _write(replace(recipe, method=method, parameters=()), desk, None), "method")


def with_recipe(session: Session, recipe: Recipe) -> Session:
    """A preset, a file, another family: one step of undo."""
    return _step(session, checked(recipe, session.recipe.base), "")


def checked(recipe: Recipe, base: str | None) -> Recipe:
    """A recipe the page can show: a method it knows, a base, one to six experts, which may be merges."""
    if recipe.method not in METHODS:
        from merging.words import nearest

        known = ", ".join(METHODS)
        raise UserError("E_METHOD", f"There is no method called `{recipe.method[:60]}`.",
                        where="merge_method", do=nearest(recipe.method, METHODS) or f"Known: {known}.")  # fmt: skip
    if recipe.slices or any(stage.slices or stage.name == recipe.base for stage in recipe.stages):
        has = "slices" if recipe.slices or any(stage.slices for stage in recipe.stages) else "a merge for its base"
        raise UserError("E_SLICES", "The page shows one merge of whole models on a base in a folder; this recipe has "
                        f"{has}.", where="recipe",
                        do="Run it with `python -m merging merge RECIPE.yml OUT/`.")  # fmt: skip
    listed = [e for e in recipe.experts if e.model != recipe.base or e.parameters]
    if not 1 <= len(listed) <= MAX_EXPERTS:
        raise UserError("E_EXPERTS", f"The page shows 1 to {MAX_EXPERTS} experts; this recipe has {len(listed)}.",
                        where="models", do="Larger recipes run on the command line.")  # fmt: skip
    return without_idle(replace(recipe, base=recipe.base or base, experts=tuple(listed)))


def rolled(session: Session) -> Session:
    """The same merge with the next seed: another draw, one step of undo."""
    return _step(session, replace(session.recipe, seed=session.recipe.seed + 1, name="", note=""), "")


def with_locks(session: Session, locks: tuple[Lock, ...]) -> Session:
    """Other matrices are taken from a model as they are: one step of undo."""
    return _step(session, replace(session.recipe, locks=locks, name="", note=""), "")


def undone(session: Session) -> Session:
    if not session.past:
        return session
    return replace(session, recipe=session.past[-1], past=session.past[:-1], touched="")


def names_of(recipe: Recipe) -> tuple[str, ...]:
    """What the screen calls the experts: folder names, numbered where two are alike."""
    names = ["merge", "base", *BESIDE]  # what Chat calls its other columns
    others = len(names)
    for expert in recipe.experts:
        name = expert.name
        twins = sum(other == name or other.startswith(f"{name} ") for other in names)
        names.append(f"{name} {twins + 1}" if twins else name)
    return tuple(names[others:])


def _step(session: Session, recipe: Recipe, touched: str) -> Session:
    if recipe == session.recipe:
        return session
    if touched and touched == session.touched:
        return replace(session, recipe=recipe)
    return replace(session, recipe=recipe, past=(*session.past, session.recipe)[-_MAX_UNDO:], touched=touched)


def _write(recipe: Recipe, desk: Desk, keys: list[str] | None) -> Recipe:
    """The recipe with the desk's values for `keys`; None writes them all and drops what the method does not know."""
    knobs = {k: v for k, v in desk.knobs.items() if keys is None or k in keys}
    own = {k: v for k, v in desk.per_expert.items() if keys is None or k in keys}
    shared = tuple((k, v) for k, v in recipe.parameters if k not in own)
    experts = tuple(
        replace(
            e, parameters=_put(() if keys is None else e.parameters, {k: v[i] for k, v in own.items() if i < len(v)})
        )
        for i, e in enumerate(recipe.experts)
    )
    # Changed numbers are no longer what the name and the note speak of.
    at_rest = {k.key for k in shared_knobs(METHODS[recipe.method]) if knobs.get(k.key) == k.default}
    parameters = tuple((k, v) for k, v in _put(shared, knobs) if k not in at_rest)  # not written where they do nothing
    return replace(recipe, parameters=parameters, experts=experts, name="", note="")


def _put(settings: Settings, values: Mapping[str, Value]) -> Settings:
    merged: dict[str, Setting] = dict(settings)
    merged.update(values)
    return tuple(merged.items())


def _find(settings: Settings, key: str, wider: Settings = ()) -> Setting:
    return dict(settings).get(key, dict(wider).get(key))


def _number(value: Value) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _same(a: object, b: object) -> bool:
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) < 1e-9
    return a == b
