"""Which inputs make which tensor of the merge: whole models name by name, or slices of their layers in a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merging.checkpoint import FLOATS, Checkpoint, TensorInfo
from merging.compatibility import mismatches
from merging.config_checks import contradictions
from merging.errors import UserError
from merging.layers import at_layer, comes_first, depth_of, layer_count, layer_of
from merging.merged_config import Layers, mixed_layers, sliced_config
from merging.method import Method
from merging.recipe import Recipe, Slice, Source
from merging.values import Setting

Scope = Mapping[str, Setting]


@dataclass(frozen=True)
class Input:
    """One model's part in a tensor of the merge: which of the plan's experts, and what it calls the tensor."""

    model: int
    name: str


@dataclass(frozen=True)
class Place:
    """One tensor of the merge before its settings are known. `info` is that of the model it takes its shape from."""

    name: str
    info: TensorInfo
    depth: float
    base_name: str  # what the base calls it; "" where the base has no part in it
    inputs: tuple[Input, ...]
    own: tuple[tuple[Scope, ...], ...]  # scopes of each input's settings, the narrowest first
    shared: tuple[Scope, ...]


def models_of(recipe: Recipe, method: Method) -> list[str]:
    """The models that a method merges: without the base in delta space; with it first where the method wants that."""
    listed = [expert.model for expert in recipe.experts]
    others = [model for model in listed if not recipe.is_base(model)]
    if method.space_with(recipe.base) != "weights":
        return others
    return [recipe.base, *others] if method.base_first and recipe.base else listed


def places(recipe: Recipe, method: Method, opened: Mapping[str, Checkpoint]) -> Iterator[Place]:
    """Every tensor of the merge, in the order of its file."""
    if recipe.slices:
        yield from _sliced(recipe, method, opened)
        return
    base, models = opened[recipe.base or recipe.experts[0].model], models_of(recipe, method)
    shared = dict(recipe.parameters)
    written = [(e.model, dict(e.parameters)) for e in recipe.experts]
    if method.space_with(recipe.base) != "weights" or (method.base_first and recipe.base):
        written = [(model, settings) for model, settings in written if not recipe.is_base(model)]
        written = [(model, {}) for model in models[: len(models) - len(written)]] + written
    own = tuple((settings, shared) for _, settings in written)
    n_layers = layer_count(base.tensors)
    for name, info in base.tensors.items():
        merged = info.dtype in FLOATS
        inputs = tuple(Input(t, name) for t in range(len(models))) if merged else ()
        depth = depth_of(layer_of(name), n_layers)
        yield Place(name, info, depth, name, inputs, own if merged else (), (shared,))


def _sliced(recipe: Recipe, method: Method, opened: Mapping[str, Checkpoint]) -> Iterator[Place]:
    models, everywhere = models_of(recipe, method), dict(recipe.parameters)
    at = 0
    for i, part in enumerate(recipe.slices):
        below, used = _parts(recipe, method, part)
        leading = below or used[0]
        ends = (i == 0, i == len(recipe.slices) - 1)
        shared = (dict(part.parameters), everywhere)
        own = tuple((dict(source.parameters), *shared) for source in used)
        for name, info in opened[leading.model].tensors.items():
            step = _step(name, leading, ends)
            if step is None:
                continue
            layer = layer_of(name)
            inputs = tuple(
                Input(models.index(s.model), name if layer is None else at_layer(name, s.layers[0] + step))
                for s in (used if info.dtype in FLOATS else [] if leading is below else [leading])
            )
            base = next((s for s in part.sources if recipe.is_base(s.model)), None)
            base_name = "" if base is None else name if layer is None else at_layer(name, base.layers[0] + step)
            new = name if layer is None else at_layer(name, at + step)
            depth = depth_of(None if layer is None else step, _length(leading))
            yield Place(new, info, depth, base_name, inputs, own if info.dtype in FLOATS else (), shared)
        at += _length(leading)


def _parts(recipe: Recipe, method: Method, part: Slice) -> tuple[Source | None, list[Source]]:
    """The base's part in a slice where deltas are taken from it, and the parts that the method merges, in order."""
    base = [source for source in part.sources if recipe.is_base(source.model)]
    others = [source for source in part.sources if not recipe.is_base(source.model)]
    if method.space_with(recipe.base) != "weights":
        return base[0], others
    return None, [*base, *others] if method.base_first else list(part.sources)


def _step(name: str, source: Source, ends: tuple[bool, bool]) -> int | None:
    """How far into the slice a tensor of a source lies, 0 outside the layers; None where it is no part of it."""
    layer = layer_of(name)
    if layer is None:
        return 0 if ends[0 if comes_first(name) else 1] else None
    return layer - source.layers[0] if source.layers[0] <= layer < source.layers[1] else None


def _length(source: Source) -> int:
    return source.layers[1] - source.layers[0]


def slice_problems(
    recipe: Recipe, method: Method, opened: Mapping[str, Checkpoint], notices: list[str]
) -> Iterator[UserError]:
    """What is wrong with the slices of a recipe whose models are open."""
    base = opened[recipe.base or recipe.experts[0].model]
    least, most = method.experts
    needs_base = method.space_with(recipe.base) != "weights" or (method.base_first and recipe.base is not None)
    problems: list[UserError] = []
    for i, part in enumerate(recipe.slices, 1):
        where = f"slice {i}"
        for source in part.sources:
            n_layers = layer_count(opened[source.model].tensors)
            if source.layers[1] > n_layers:
                problems.append(UserError("E_LAYERS", f"layer_range ends at {source.layers[1]}, but {source.model} has "
                                          f"{n_layers}", where=where))  # fmt: skip
        bases = sum(recipe.is_base(source.model) for source in part.sources)
        others = len(part.sources) - (bases if method.space_with(recipe.base) != "weights" else 0)
        if needs_base and bases != 1:
            problems.append(UserError("E_BASE", f"`{method.id}` needs the base once in every slice, with the layers "
                                      f"to compare with; it stands there {bases} times", where=where))  # fmt: skip
        elif not least <= others <= most:
            number = f"exactly {least}" if least == most else f"{least} to {most}"
            problems.append(UserError("E_MODELS", f"`{method.id}` merges {number} models; the slice has {others}",
                                      where=where))  # fmt: skip
    if problems:
        yield from problems
        return
    for model in dict.fromkeys(e.model for e in recipe.experts if opened[e.model] is not base):
        ours, theirs = (_only(c, {name: name for name in c.tensors if layer_of(name) is None})
                        for c in (base, opened[model]))  # fmt: skip
        problems += mismatches(ours, theirs, model, notices)
    for part in recipe.slices:
        below, used = _parts(recipe, method, part)
        leading = below or used[0]
        ours = _inside(opened[leading.model], leading)
        for source in used:
            if source is not leading:
                problems += mismatches(ours, _inside(opened[source.model], source), source.model, notices)
    if not problems:
        found = list(places(recipe, method, opened))
        layers = layer_sources(recipe, method, opened)
        config = sliced_config(base.config, layers)
        shapes = {place.name: place.info.shape for place in found}
        problems += [UserError("E_CONFIG", f"these layers do not fit into one model: {what}", where="slices")
                     for what in contradictions(config, shapes)]  # fmt: skip
        problems += [UserError("E_CONFIG", f"config.json cannot say which layers are special ({key})", where="slices")
                     for key in mixed_layers(base.config, layers)]  # fmt: skip
    yield from {str(problem): problem for problem in problems}.values()


def layer_sources(recipe: Recipe, method: Method, opened: Mapping[str, Checkpoint]) -> Layers:
    """For each layer of a sliced merge: the config of the model it takes its shape from, and which layer of it."""
    found: list[tuple[Mapping[str, Any], int]] = []
    for part in recipe.slices:
        below, used = _parts(recipe, method, part)
        leading = below or used[0]
        found += [(opened[leading.model].config, layer) for layer in range(*leading.layers)]
    return found


def _inside(model: Checkpoint, source: Source) -> Checkpoint:
    """A source's layers alone, counted from 0."""
    names = {}
    for name in model.tensors:
        layer = layer_of(name)
        if layer is not None and source.layers[0] <= layer < source.layers[1]:
            names[at_layer(name, layer - source.layers[0])] = name
    return _only(model, names)


def _only(model: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    tensors = {new: model.tensors[name] for new, name in names.items()}
    return Checkpoint(model.source, model.folder, model.config, tensors)
