"""Recipe + headers -> Plan: every tensor's settings and every problem, without reading a weight."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.alignment import Output, fitted
from merging.calibration import Calibration, Inputs, calibration_of
from merging.checkpoint import Checkpoint, bytes_to_download
from merging.compatibility import mismatches
from merging.errors import Fix, UserError, all_of, placed
from merging.estimate import Estimate, estimate
from merging.fixes import keep_first, leave_out
from merging.hub import Hub
from merging.layout import layer_sources, models_of, places, slice_problems
from merging.locks import lock_problems
from merging.merged_config import merged_config
from merging.method import Method, Space
from merging.methods import METHODS
from merging.models import open_model
from merging.recipe import Recipe
from merging.settings import canonical, setting_problems, text_problems
from merging.shaper import Shaper
from merging.shapers import SHAPERS
from merging.stage import leaves, stage, stage_problems
from merging.tensor_plan import TensorPlan, plan_tensors, weight_problems
from merging.words import nearest, nearest_name, shown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Plan:
    """Everything that an export needs to know before it reads a weight."""

    recipe: Recipe
    method: Method
    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    tensors: tuple[TensorPlan, ...]
    notices: tuple[str, ...]
    download_bytes: int  # of Hub models that are not on this machine
    tokenizer: Output
    config: Mapping[str, Any]  # of the merge
    calibration: Calibration | None = None

    @property
    def models(self) -> tuple[Checkpoint, ...]:
        return (self.base, *self.experts)

    @property
    def space(self) -> Space:
        return self.method.space_with(self.recipe.base)

    @cached_property
    def estimate(self) -> Estimate:
        return estimate(self)

    @cached_property
    def digest(self) -> str:
        """sha256 of what decides the merged bytes: method and version, settings, sources' fingerprints.

        Models count by what they hold, so that it is the same however their folders are spelled.
        """
        models = [m for m in self.recipe.experts if self.space == "weights" or not self.recipe.is_base(m.model)]
        held = {model.source: model.fingerprint for model in (self.tokenizer.source, *self.models)}
        named = self.recipe.renamed(lambda source: held.get(source, ""))  # others only fill rows: a view's fingerprint
        form = {
            "method": [self.method.id, self.method.version],
            "base": self.base.fingerprint,
            "models": [c.fingerprint for c in self.experts],
            "parameters": [canonical(self.recipe.parameters), *(canonical(m.parameters) for m in models)],
            "dtype": [self.recipe.dtype, self.recipe.out_dtype],
            "text": [named.tokenizer_source, self.recipe.chat_template],
            "seed": self.recipe.seed,
        }
        if named.tokenizer:
            form["tokenizer"] = repr(named.tokenizer)
        if named.slices:
            form["slices"] = [
                [canonical(part.parameters), *([s.model, s.layers, canonical(s.parameters)] for s in part.sources)]
                for part in named.slices
            ]
        if self.recipe.locks:
            form["held"] = [[tensor.name, tensor.held] for tensor in self.tensors if tensor.held is not None]
        shapers = _shapers(self.tensors)
        if shapers:
            form["shapers"] = [[shaper.id, shaper.version] for shaper in shapers]
        if self.calibration and (self.method.calibrated or any(shaper.calibrated for shaper in shapers)):
            form["calibration"] = self.calibration.digest
        return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()

    def inputs(self, tensor: TensorPlan, keep: Sequence[int], device: "torch.device") -> Inputs:
        """What calibration says of a tensor, for those of its inputs that are kept."""
        assert self.calibration
        experts = [self.experts[tensor.inputs[t].model].fingerprint for t in keep]
        return self.calibration.inputs(tensor.name, experts, device)

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


def members(recipe: Recipe) -> tuple[Checkpoint, ...]:
    """The recipe's base and the experts beside it, stages among them, whatever its method still lacks."""
    sources = [source for source in (recipe.base, *(expert.model for expert in recipe.beside_base)) if source]
    return open_models(sources, recipe.base, recipe.folder, recipe.stages)


def open_models(
    sources: Iterable[str], base: str | None, folder: Path = Path(), stages: Sequence[Recipe] = ()
) -> tuple[Checkpoint, ...]:
    """The models of these names, which may be the names of `stages`; raises UserError for what cannot be opened."""
    made, found = _check_stages(stages, None)
    if problems := [problem for one in found for problem in one.problems]:
        raise all_of(problems)
    return tuple(made.get(source) or open_model(source, folder, base=base) for source in sources)


def check(recipe: Recipe, hub: Hub | None = None) -> Checked:
    """Find every problem of a recipe and its stages at once, from its text and the models' headers.

    With a `hub`, the headers of Hub models that are not on this machine are fetched, and never a weight.
    """
    made, stages = _check_stages(recipe.stages, hub)
    last = _check(recipe, hub, made)
    if not stages:
        return last
    found = (*stages, _named(last, recipe))
    problems = tuple(problem for one in found for problem in one.problems)
    notices = tuple(text for one in found for text in one.notices)
    if problems or last.plan is None:
        return Checked(None, problems, notices)
    return Checked(replace(last.plan, notices=notices), (), notices)


def _check_stages(stages: Iterable[Recipe], hub: Hub | None) -> tuple[dict[str, Checkpoint | None], list[Checked]]:
    """Stages by name, None for those that cannot be made, and what was found in each."""
    made: dict[str, Checkpoint | None] = {}
    found = []
    for one in stages:
        checked = _check(one, hub, made)
        found.append(_named(replace(checked, problems=(*stage_problems(one), *checked.problems)), one))
        made[one.name] = stage(checked.plan) if checked.plan else None
    return made, found


def _named(found: Checked, recipe: Recipe) -> Checked:
    """The same, said of one merge among others."""
    name = shown(recipe.name)[1:-1] or "the last merge"
    problems = tuple(placed(problem, name) for problem in found.problems)
    return Checked(found.plan, problems, tuple(f"{name}: {text}" for text in found.notices))


def _check(recipe: Recipe, hub: Hub | None, made: Mapping[str, Checkpoint | None]) -> Checked:
    """`made` holds the merges before this one by name, None for those that cannot be made."""
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
    problems += lock_problems(recipe)
    opened: dict[str, Checkpoint] = {}
    sources: list[str] = [recipe.base] if recipe.base else []
    sources += [expert.model for expert in recipe.experts]
    sources += recipe.vocabulary.models if recipe.vocabulary else ()
    for source in dict.fromkeys(sources):
        if source in made:
            if ready := made[source]:
                opened[source] = ready
            continue
        try:
            opened[source] = open_model(source, recipe.folder, hub, recipe.base)
            notices += [text for text in opened[source].notices if text not in notices]
        except UserError as error:
            error.do = nearest(source, made) or error.do
            problems.append(_with_fix(error, _without(recipe, source)))
    if method is None or any(source in made and source not in opened for source in sources):
        return Checked(None, tuple(problems), tuple(notices))

    problems += _count_problems(recipe, method)
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    first, models = recipe.base or recipe.experts[0].model, models_of(recipe, method)
    members = list(dict.fromkeys([first, *models]))
    opened, tokenizer = fitted(recipe.vocabulary, members, recipe.base is not None, opened, notices, problems)
    base, experts = opened[first], tuple(opened[source] for source in models)
    if recipe.slices:
        problems += slice_problems(recipe, method, opened, notices)
    else:
        for source in dict.fromkeys(source for source in models if opened[source] is not base):
            problems += [_with_fix(error, leave_out(recipe, source))
                         for error in mismatches(base, opened[source], source, notices)]  # fmt: skip
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    tensors = tuple(plan_tensors(recipe, method, models, places(recipe, method, opened), problems, notices))
    problems += weight_problems(recipe, method, tensors)
    calibration = calibration_of(recipe, method, _shapers(tensors), experts, base, problems, notices)
    if problems:
        return Checked(None, tuple(problems), tuple(notices))
    layers = layer_sources(recipe, method, opened) if recipe.slices else ()
    config = merged_config(base.config, recipe.out_dtype or recipe.dtype, layers)
    missing = bytes_to_download(leaves(*opened.values()))
    plan = Plan(recipe, method, base, experts, tensors, tuple(notices), missing, tokenizer, config, calibration)
    return Checked(plan, (), tuple(notices))


def _shapers(tensors: Iterable[TensorPlan]) -> list[Shaper]:
    """Those that the tensors go through, by name."""
    return [SHAPERS[name] for name in sorted({str(t.settings.get("shaper")) for t in tensors} & SHAPERS.keys())]


def _without(recipe: Recipe, source: str) -> Fix | None:
    """What makes the merge do without a model that cannot be opened."""
    if source == recipe.tokenizer_source and all(source != expert.model for expert in recipe.experts):
        return Fix("Use the base's vocabulary", "set", ("tokenizer_source",), "base")
    return leave_out(recipe, source)


def _with_fix(error: UserError, fix: Fix | None) -> UserError:
    for part in (error, *error.parts):
        part.fix = part.fix or fix
    return error


def _count_problems(recipe: Recipe, method: Method) -> Iterator[UserError]:
    models = models_of(recipe, method)
    least, most = method.experts
    space = method.space_with(recipe.base)
    if space != "weights" and recipe.base is None:
        first = recipe.experts[0]
        fix = Fix(f"Take {first.name} as the base", "set", ("base_model",), first.model)
        yield UserError("E_BASE", f"`{method.id}` needs a base", where="base_model", do="Write `base_model: FOLDER`.",
                        fix=fix)  # fmt: skip
    elif not recipe.slices and not least <= len(models) <= most:
        number = f"exactly {least}" if least == most else f"{least} to {most}"
        noun = "models" if space == "weights" else "experts beside the base"
        fix = keep_first(recipe, models[:most]) if len(models) > most else None
        yield UserError(
            "E_MODELS", f"`{method.id}` merges {number} {noun}; the recipe has {len(models)}", where="models", fix=fix
        )
