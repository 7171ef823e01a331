"""What happens to each tensor of the merge: its settings, weights and lock, resolved from the recipe."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch

from merging.checkpoint import DTYPES as STORED
from merging.checkpoint import FLOATS
from merging.errors import Fix, UserError
from merging.layout import Input, Place
from merging.locks import BASE, held_to, lock_of, lock_target
from merging.method import WEIGHT, Method
from merging.recipe import Recipe
from merging.settings import setting_value
from merging.shaping import shared_knobs
from merging.words import count, first_names, shown

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TensorPlan:
    """What happens to one tensor. `weights` and per-expert settings have one entry per input, in order."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    action: Literal["merge", "copy"]
    depth: float
    weights: tuple[float, ...]
    settings: Mapping[str, Any]
    excluded: bool
    base_name: str  # what the base calls it; "" where the base has no part in it
    inputs: tuple[Input, ...]
    held: int | None = None  # locked: kept as this input has it, or as the base (locks.BASE)

    @property
    def is_merged(self) -> bool:
        """Whether the method makes it. Any other is copied, or kept as its lock says (`compute.kept_tensor`)."""
        return self.action == "merge" and self.held is None


def plan_tensors(
    recipe: Recipe, method: Method, models: list[str], laid: Iterator[Place], problems: list[UserError],
    notices: list[str],
) -> Iterator[TensorPlan]:  # fmt: skip
    wanted = DTYPES.get(recipe.out_dtype or recipe.dtype or "")
    shaping = [knob for knob in shared_knobs(method, recipe.base) if not knob.per_expert]
    targets = [lock_target(recipe, lock) for lock in recipe.locks]
    used: set[int] = set()
    absent: dict[int, list[str]] = {}  # lock -> tensors in which what it holds to has no part
    for place in laid:
        lock = lock_of(recipe.locks, place.name)
        used |= set() if lock is None else {lock}
        name, info = place.name, place.info
        dtype = (wanted if info.dtype in FLOATS else None) or STORED[info.dtype]
        if info.dtype not in FLOATS or 0 in info.shape:  # whole numbers, or no entry to merge
            yield TensorPlan(name, info.shape, dtype, "copy", 0.0, (), {}, False, place.base_name, place.inputs)
            continue
        settings: dict[str, Any] = {}
        each = [(scopes, part.name) for scopes, part in zip(place.own, place.inputs, strict=True)]
        for knob in (*method.knobs, *shaping):
            if knob.per_expert:
                settings[knob.key] = tuple(setting_value(knob, own, at, place.depth) for own, at in each)
            else:
                settings[knob.key] = setting_value(knob, place.shared, name, place.depth)
        weights = tuple(
            float(setting_value(WEIGHT, own, at, place.depth)) if method.uses_weight else 1.0 for own, at in each
        )
        excluded = any(fnmatchcase(name, pattern) for pattern in settings.get("exclude", ()))
        held = None if lock is None else held_to(targets[lock], [models[part.model] for part in place.inputs])
        if (held == BASE and not place.base_name) or (lock is not None and held is None):
            absent.setdefault(lock or 0, []).append(name)
        yield TensorPlan(name, info.shape, dtype, "merge", place.depth, weights, settings,
                         excluded, place.base_name, place.inputs, held)  # fmt: skip
    for i, names in absent.items():
        what = f"{shown(recipe.locks[i].to)} has no part in {count(names, 'tensor')}: {first_names(names)}"
        problems.append(UserError("E_LOCK", what, where=f"locks, entry {i + 1}", do="Leave them out with `except`."))
    for i in sorted(set(range(len(recipe.locks))) - used):
        patterns = shown(", ".join(recipe.locks[i].tensors))
        notices.append(f"locks, entry {i + 1}: {patterns} matches no tensor that an earlier lock has left.")


def weight_problems(recipe: Recipe, method: Method, tensors: tuple[TensorPlan, ...]) -> Iterator[UserError]:
    if not method.uses_weight:
        return
    merged = [t for t in tensors if t.is_merged]
    below = [t.name for t in merged if method.shares and min(t.weights) < 0]
    if below:
        what = f"`{method.id}` takes no weight below 0, which {count(below, 'tensor')} have ({first_names(below)})"
        yield UserError("E_WEIGHTS", what, where="weight", do="Weights here are shares of one model.")
    lost = [
        t.name
        for t in merged
        if _divides_by_weights(method, recipe, t)
        # float32 cannot tell a smaller sum from 0
        and abs(sum(t.weights)) <= 1e-6 * sum(map(abs, t.weights))
    ]
    if lost:
        switch = next((key for key in ("normalize", "normalize_weights") if method.knob(key)), None)
        what = f"the weights sum to 0 for {count(lost, 'tensor')} ({first_names(lost)})"
        do = f"Change a weight, or set `{switch}: false`." if switch else "Change a weight."
        fix = Fix("Do not normalize the weights", "set", ("parameters", switch), False) if switch else None
        yield UserError("E_WEIGHTS", what, where="weight", do=do, fix=fix)


def _divides_by_weights(method: Method, recipe: Recipe, tensor: TensorPlan) -> bool:
    """Whether a sum of weights of 0 leaves nothing to divide by (deltas under `normalize` then stay as they are)."""
    if method.shares or tensor.settings.get("normalize_weights"):
        return True
    return method.space_with(recipe.base) == "weights" and bool(tensor.settings.get("normalize"))
