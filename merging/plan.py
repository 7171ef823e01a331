"""Recipe + headers -> Plan: every tensor's settings and every problem, without reading a weight."""

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal

import torch

from merging.checkpoint import DTYPES as STORED
from merging.checkpoint import Checkpoint, open_checkpoint
from merging.errors import UserError, all_of
from merging.method import WEIGHT, Method
from merging.methods import METHODS
from merging.recipe import Recipe, Settings
from merging.settings import canonical, setting_problems, setting_value, text_problems
from merging.words import nearest, shown

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks|block|h)\.(\d+)\.")


@dataclass(frozen=True)
class TensorPlan:
    """What happens to one tensor. `weights` and per-expert settings have one entry per expert, in order."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    action: Literal["merge", "copy"]
    depth: float
    weights: tuple[float, ...]
    settings: Mapping[str, Any]
    excluded: bool


@dataclass(frozen=True)
class Estimate:
    """Rough costs of an export on one CPU core; seconds are within a factor of three."""

    n_parameters: int
    disk_bytes: int
    memory_bytes: int
    seconds: float


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

    @cached_property
    def digest(self) -> str:
        """sha256 of what decides the merged bytes: method and version, settings, sources' fingerprints."""
        models = [m for m in self.recipe.experts if self.method.space == "weights" or not self.recipe.is_base(m.model)]
        form = {
            "method": [self.method.id, self.method.version],
            "base": self.base.fingerprint,
            "models": [c.fingerprint for c in self.experts],
            "parameters": [canonical(self.recipe.parameters), *(canonical(m.parameters) for m in models)],
            "dtype": [self.recipe.dtype, self.recipe.out_dtype],
            "text": [self.recipe.tokenizer_source, self.recipe.chat_template],
            "seed": self.recipe.seed,
        }
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


def make_plan(recipe: Recipe) -> Plan:
    """The plan of a recipe; raises one UserError that lists every problem."""
    checked = check(recipe)
    if checked.plan is None:
        raise all_of(checked.problems)
    return checked.plan


def check(recipe: Recipe) -> Checked:
    """Find every problem of a recipe at once, from its text and the models' headers."""
    problems: list[UserError] = []
    notices: list[str] = []
    method = METHODS.get(recipe.method)
    if method is None:
        known = nearest(recipe.method, METHODS) or f"Known: {', '.join(METHODS)}."
        problems.append(
            UserError("E_METHOD", f"there is no method {shown(recipe.method)}", where="merge_method", do=known)
        )
    else:
        problems += setting_problems(recipe, method, notices)

    problems += text_problems(recipe)
    opened: dict[str, Checkpoint] = {}
    sources: list[str] = [recipe.base] if recipe.base else []
    sources += [expert.model for expert in recipe.experts]
    if recipe.tokenizer_source not in (None, "base", "union"):
        sources.append(recipe.tokenizer_source)
    for source in dict.fromkeys(sources):
        try:
            opened[source] = open_checkpoint(source, recipe.folder)
            notices += opened[source].notices
        except UserError as error:
            problems.append(error)
    if method is None:
        return Checked(None, tuple(problems), tuple(notices))

    models = _models_of(recipe, method)
    problems += _count_problems(recipe, method, models)
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    base = opened[recipe.base or recipe.experts[0].model]
    experts = tuple(opened[source] for source, _ in models)
    for source in dict.fromkeys(source for source, _ in models if opened[source] is not base):
        problems += _mismatches(base, opened[source], source, notices)
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    tensors = tuple(_plan_tensors(recipe, method, base, [settings for _, settings in models]))
    problems += _weight_problems(method, tensors)
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    plan = Plan(recipe, method, base, experts, tensors, tuple(notices), _estimate(method, base, experts, tensors))
    return Checked(plan, (), tuple(notices))


def _models_of(recipe: Recipe, method: Method) -> list[tuple[str, Settings]]:
    """The models that a method merges: without the base in delta space; with it as first end for `slerp`."""
    listed = [(e.model, e.parameters) for e in recipe.experts]
    if method.space != "weights":
        return [(model, settings) for model, settings in listed if not recipe.is_base(model)]
    if not method.uses_weight and recipe.base:
        rest = [(model, settings) for model, settings in listed if not recipe.is_base(model)]
        return [(recipe.base, ()), *rest]
    return listed


def _count_problems(recipe: Recipe, method: Method, models: list[tuple[str, Settings]]) -> Iterator[UserError]:
    least, most = method.experts
    if method.space != "weights" and recipe.base is None:
        yield UserError("E_BASE", f"`{method.id}` needs a base", where="base_model", do="Write `base_model: FOLDER`.")
    elif not least <= len(models) <= most:
        number = f"exactly {least}" if least == most else f"{least} to {most}"
        noun = "models" if method.space == "weights" else "experts beside the base"
        yield UserError(
            "E_MODELS", f"`{method.id}` merges {number} {noun}; the recipe has {len(models)}", where="models"
        )


def _mismatches(base: Checkpoint, expert: Checkpoint, source: str, notices: list[str]) -> Iterator[UserError]:
    where = source if len(source) < 80 else f"…{source[-70:]}"
    kinds = [c.config.get("model_type") for c in (base, expert)]
    if kinds[0] != kinds[1] and all(kinds):
        yield UserError(
            "E_ARCHITECTURE", f"is a {shown(kinds[1])} model, the base a {shown(kinds[0])} model", where=where
        )
    missing = [name for name in base.tensors if name not in expert.tensors]
    if missing:
        yield UserError(
            "E_TENSOR_MISSING", f"lacks {_count(missing, 'tensor')} of the base: {_first(missing)}", where=where
        )
    differing = [n for n, info in base.tensors.items() if n in expert.tensors and expert.tensors[n].shape != info.shape]
    if differing:
        name = differing[0]
        theirs, ours = (" × ".join(map(str, c.tensors[name].shape)) or "a scalar" for c in (expert, base))
        more = f" ({len(differing) - 1} more differ)" if len(differing) > 1 else ""
        yield UserError(
            "E_SHAPE_MISMATCH",
            f"`{name}` is {theirs}, in the base {ours}{more}",
            where=where,
            do="Use experts that were trained from this base.",
        )
    odd = [
        n
        for n, info in base.tensors.items()
        if info.dtype in FLOATS and n in expert.tensors and expert.tensors[n].dtype not in FLOATS
    ]
    if odd:
        yield UserError(
            "E_DTYPE", f"`{odd[0]}` is stored as {expert.tensors[odd[0]].dtype}, not as numbers to merge", where=where
        )
    extra = [name for name in expert.tensors if name not in base.tensors]
    # buffers and heads may be left out; a layer's own weights may not
    lost = [name for name in extra if layer_of(name) is not None and name.endswith(".weight")]
    if lost:
        yield UserError(
            "E_TENSOR_MISSING", f"lacks {_count(lost, 'tensor')} that {where} holds: {_first(lost)}", where=base.source
        )
    elif extra:
        notices.append(f"{where}: {_count(extra, 'tensor')} that the base lacks left out: {_first(extra)}.")


def _plan_tensors(recipe: Recipe, method: Method, base: Checkpoint, models: list[Settings]) -> Iterator[TensorPlan]:
    n_layers = layer_count(base.tensors)
    wanted = DTYPES.get(recipe.out_dtype or recipe.dtype or "")
    shared = dict(recipe.parameters)
    own = [dict(settings) for settings in models]
    for name, info in base.tensors.items():
        if info.dtype not in FLOATS:
            yield TensorPlan(name, info.shape, STORED[info.dtype], "copy", 0.0, (), {}, False)
            continue
        depth = _depth(name, n_layers)
        settings: dict[str, Any] = {}
        for knob in method.knobs:
            if knob.per_expert:
                settings[knob.key] = tuple(setting_value(knob, (o, shared), name, depth) for o in own)
            else:
                settings[knob.key] = setting_value(knob, (shared,), name, depth)
        weights = tuple(
            float(setting_value(WEIGHT, (o, shared), name, depth)) if method.uses_weight else 1.0 for o in own
        )
        excluded = any(fnmatchcase(name, pattern) for pattern in settings.get("exclude", ()))
        yield TensorPlan(name, info.shape, wanted or FLOATS[info.dtype], "merge", depth, weights, settings, excluded)


def layer_of(name: str) -> int | None:
    """Index of the layer a tensor belongs to; None for embeddings, final norm and head."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def layer_count(names: Collection[str]) -> int:
    return max((layer + 1 for name in names if (layer := layer_of(name)) is not None), default=0)


def _depth(name: str, n_layers: int) -> float:
    """0 first layer .. 1 last; embeddings, final norm and head count as 0, as in mergekit (its goldens say so)."""
    layer = layer_of(name)
    return 0.0 if layer is None else layer / max(n_layers - 1, 1)


def _weight_problems(method: Method, tensors: tuple[TensorPlan, ...]) -> Iterator[UserError]:
    if method.space != "weights" or not method.uses_weight:
        return
    bad = [
        t.name
        for t in tensors
        if t.action == "merge"
        and t.settings.get("normalize")
        # float32 cannot tell a smaller sum from 0
        and abs(sum(t.weights)) <= 1e-6 * sum(map(abs, t.weights))
    ]
    if bad:
        yield UserError(
            "E_WEIGHTS",
            f"the weights sum to 0 for {_count(bad, 'tensor')} ({_first(bad)})",
            where="weight",
            do="Change a weight, or set `normalize: false`.",
        )


def _estimate(
    method: Method, base: Checkpoint, experts: tuple[Checkpoint, ...], tensors: tuple[TensorPlan, ...]
) -> Estimate:
    sizes = [math.prod(t.shape) for t in tensors]
    n_parameters, largest = sum(sizes), max(sizes, default=0)
    disk = sum(size * t.dtype.itemsize for size, t in zip(sizes, tensors, strict=True))
    n = len(experts)
    seconds = n_parameters * (n + 2) * 4 / 1e9
    if method.spectral:
        matrices = [t.shape for t in tensors if len(t.shape) == 2 and not t.excluded]
        # a full SVD costs about 16 x max x min^2; one per expert and two for the polar factors; 30 GFLOP/s a core
        seconds += sum(16 * max(s) * min(s) ** 2 * (n + 2) for s in matrices) / 30e9
        largest = max((math.prod(s) for s in matrices), default=largest) * 3
    return Estimate(n_parameters, disk, largest * 4 * (n + 3) + min(disk, 1 << 30), seconds)


def _count(items: Collection[str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _first(names: list[str]) -> str:
    return ", ".join(f"`{name[:80]}`" for name in names[:3]) + (", …" if len(names) > 3 else "")
