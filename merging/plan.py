"""Recipe + headers -> Plan: every tensor's settings and every problem, without reading a weight."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal

import torch

from merging.alignment import Output, fitted
from merging.checkpoint import DTYPES as STORED
from merging.checkpoint import FLOATS, Checkpoint
from merging.compatibility import mismatches
from merging.errors import Fix, UserError, all_of
from merging.estimate import Estimate, estimate
from merging.fixes import keep_first, leave_out
from merging.hub import Hub
from merging.layers import depth_of, layer_count
from merging.method import WEIGHT, Method, Space
from merging.methods import METHODS
from merging.models import open_model
from merging.recipe import Recipe, Settings
from merging.settings import canonical, setting_problems, setting_value, text_problems
from merging.shaping import shared_knobs
from merging.words import count, first_names, nearest, nearest_name, shown

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Input:
    """One model's part in a tensor of the merge: which of the plan's experts, and what it calls the tensor."""

    model: int
    name: str


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
    base_name: str  # what the base calls it
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that an export needs to know before it reads a weight."""

    recipe: Recipe
    method: Method
    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    tensors: tuple[TensorPlan, ...]
    notices: tuple[str, ...]
    estimate: Estimate
    tokenizer: Output

    @property
    def space(self) -> Space:
        return self.method.space_with(self.recipe.base)

    @cached_property
    def digest(self) -> str:
        """sha256 of what decides the merged bytes: method and version, settings, sources' fingerprints."""
        models = [m for m in self.recipe.experts if self.space == "weights" or not self.recipe.is_base(m.model)]
        form = {
            "method": [self.method.id, self.method.version],
            "base": self.base.fingerprint,
            "models": [c.fingerprint for c in self.experts],
            "parameters": [canonical(self.recipe.parameters), *(canonical(m.parameters) for m in models)],
            "dtype": [self.recipe.dtype, self.recipe.out_dtype],
            "text": [self.recipe.tokenizer_source, self.recipe.chat_template],
            "seed": self.recipe.seed,
        } | ({"tokenizer": repr(self.recipe.tokenizer)} if self.recipe.tokenizer else {})
        return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()

    def tensor(self, name: str) -> TensorPlan:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, TensorPlan]:
        return {tensor.name: tensor for tensor in self.tensors}


@dataclass(frozen=True)
class Checked:
    """What `check` found; `plan` is there only when there is no problem."""

    plan: Plan | None
    problems: tuple[UserError, ...]
    notices: tuple[str, ...]


def make_plan(recipe: Recipe, hub: Hub | None = None) -> Plan:
    """The plan of a recipe; raises one UserError that lists every problem."""
    checked = check(recipe, hub)
    if checked.plan is None:
        raise all_of(checked.problems)
    return checked.plan


def check(recipe: Recipe, hub: Hub | None = None) -> Checked:
    """Find every problem of a recipe at once, from its text and the models' headers.

    With a `hub`, the headers of Hub models that are not on this machine are fetched, and never a weight.
    """
    problems: list[UserError] = []
    notices: list[str] = []
    method = METHODS.get(recipe.method)
    if method is None:
        known = nearest(recipe.method, METHODS) or f"Known: {', '.join(METHODS)}."
        near = nearest_name(recipe.method, METHODS) or "task_arithmetic"
        problems.append(
            UserError("E_METHOD", f"there is no method {shown(recipe.method)}", where="merge_method", do=known,
                      fix=Fix(f"Use {near}", "set", ("merge_method",), near))
        )  # fmt: skip
    else:
        problems += setting_problems(recipe, method, notices)

    problems += text_problems(recipe)
    opened: dict[str, Checkpoint] = {}
    sources: list[str] = [recipe.base] if recipe.base else []
    sources += [expert.model for expert in recipe.experts]
    sources += recipe.vocabulary.models if recipe.vocabulary else ()
    for source in dict.fromkeys(sources):
        try:
            opened[source] = open_model(source, recipe.folder, hub, recipe.base)
            notices += [text for text in opened[source].notices if text not in notices]
        except UserError as error:
            problems.append(_with_fix(error, _without(recipe, source)))
    if method is None:
        return Checked(None, tuple(problems), tuple(notices))

    models = _models_of(recipe, method)
    problems += _count_problems(recipe, method, models)
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    first = recipe.base or recipe.experts[0].model
    members = list(dict.fromkeys([first, *(source for source, _ in models)]))
    opened, tokenizer = fitted(recipe.vocabulary, members, recipe.base is not None, opened, notices, problems)
    base = opened[first]
    experts = tuple(opened[source] for source, _ in models)
    for source in dict.fromkeys(source for source, _ in models if opened[source] is not base):
        fix = leave_out(recipe, source)
        problems += [_with_fix(error, fix) for error in mismatches(base, opened[source], source, notices)]
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    tensors = tuple(_plan_tensors(recipe, method, base, [settings for _, settings in models]))
    problems += _weight_problems(recipe, method, tensors)
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    costs = estimate(method, len(experts), tensors)
    costs = replace(costs, download_bytes=sum(model.bytes_to_download for model in {base, *experts}))
    plan = Plan(recipe, method, base, experts, tensors, tuple(notices), costs, tokenizer)
    return Checked(plan, (), tuple(notices))


def _without(recipe: Recipe, source: str) -> Fix | None:
    """What makes the merge do without a model that cannot be opened."""
    if source == recipe.tokenizer_source and all(source != expert.model for expert in recipe.experts):
        return Fix("Use the base's vocabulary", "set", ("tokenizer_source",), "base")
    return leave_out(recipe, source)


def _with_fix(error: UserError, fix: Fix | None) -> UserError:
    for part in (error, *error.parts):
        part.fix = part.fix or fix
    return error


def _models_of(recipe: Recipe, method: Method) -> list[tuple[str, Settings]]:
    """The models that a method merges: without the base in delta space; with it first where the method wants that."""
    listed = [(e.model, e.parameters) for e in recipe.experts]
    others = [(model, settings) for model, settings in listed if not recipe.is_base(model)]
    if method.space_with(recipe.base) != "weights":
        return others
    return [(recipe.base, ()), *others] if method.base_first and recipe.base else listed


def _count_problems(recipe: Recipe, method: Method, models: list[tuple[str, Settings]]) -> Iterator[UserError]:
    least, most = method.experts
    space = method.space_with(recipe.base)
    if space != "weights" and recipe.base is None:
        first = recipe.experts[0]
        fix = Fix(f"Take {first.name} as the base", "set", ("base_model",), first.model)
        yield UserError("E_BASE", f"`{method.id}` needs a base", where="base_model", do="Write `base_model: FOLDER`.",
                        fix=fix)  # fmt: skip
    elif not least <= len(models) <= most:
        number = f"exactly {least}" if least == most else f"{least} to {most}"
        noun = "models" if space == "weights" else "experts beside the base"
        fix = keep_first(recipe, [source for source, _ in models[:most]]) if len(models) > most else None
        yield UserError(
            "E_MODELS", f"`{method.id}` merges {number} {noun}; the recipe has {len(models)}", where="models", fix=fix
        )


def _plan_tensors(recipe: Recipe, method: Method, base: Checkpoint, models: list[Settings]) -> Iterator[TensorPlan]:
    n_layers = layer_count(base.tensors)
    wanted = DTYPES.get(recipe.out_dtype or recipe.dtype or "")
    shared = dict(recipe.parameters)
    own = [dict(settings) for settings in models]
    shaping = [knob for knob in shared_knobs(method, recipe.base) if not knob.per_expert]
    for name, info in base.tensors.items():
        if info.dtype not in FLOATS:
            yield TensorPlan(name, info.shape, STORED[info.dtype], "copy", 0.0, (), {}, False, name, ())
            continue
        depth = depth_of(name, n_layers)
        settings: dict[str, Any] = {}
        for knob in (*method.knobs, *shaping):
            if knob.per_expert:
                settings[knob.key] = tuple(setting_value(knob, (o, shared), name, depth) for o in own)
            else:
                settings[knob.key] = setting_value(knob, (shared,), name, depth)
        weights = tuple(
            float(setting_value(WEIGHT, (o, shared), name, depth)) if method.uses_weight else 1.0 for o in own
        )
        excluded = any(fnmatchcase(name, pattern) for pattern in settings.get("exclude", ()))
        dtype, inputs = wanted or FLOATS[info.dtype], tuple(Input(t, name) for t in range(len(own)))
        yield TensorPlan(name, info.shape, dtype, "merge", depth, weights, settings, excluded, name, inputs)


def _weight_problems(recipe: Recipe, method: Method, tensors: tuple[TensorPlan, ...]) -> Iterator[UserError]:
    if not method.uses_weight:
        return
    merged = [t for t in tensors if t.action == "merge"]
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
