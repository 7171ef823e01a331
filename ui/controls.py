"""Knob -> what the browser draws, and back: all from the registry. Two columns show it (`ui/knobs.py`)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import BlockContext
from gradio.components import Component

from merging.method import WEIGHT, Knob, Method, Value
from merging.methods import METHODS
from merging.plots.picture import roles
from merging.recipe import Recipe
from merging.shapers import SHAPERS
from merging.shaping import SHAPING
from merging.values import Setting
from ui.knobs import Knobs
from ui.pieces import static
from ui.session import Desk, desk_of, names_of, settings_of


@dataclass(frozen=True)
class Controls:
    """All components that make up the desk."""

    method: gr.Dropdown
    weights: Knobs
    knobs: Knobs

    @property
    def columns(self) -> list[Knobs]:
        return [self.weights, self.knobs]

    @property
    def outputs(self) -> list[Component | BlockContext]:
        return [self.method, *self.columns]


def build_weights(recipe: Recipe) -> Knobs:
    static('<h2 class="part">Experts <small>weight</small></h2>')
    return Knobs(weights(recipe))


def build_knobs(recipe: Recipe) -> Knobs:
    return Knobs(knobs(recipe))


def show(controls: Controls, recipe: Recipe) -> dict[Component | BlockContext, Any]:
    """Updates that make the controls say what `recipe` says."""
    return {controls.method: recipe.method, controls.weights: weights(recipe), controls.knobs: knobs(recipe)}


def weights(recipe: Recipe) -> dict[str, Any]:
    """The experts' weights as the browser draws them; their title stands above."""
    row = _row(WEIGHT, desk_of(recipe), recipe) | {"label": ""}
    return {"method": "", "groups": [{"title": "", "rows": [row]}]}


def knobs(recipe: Recipe) -> dict[str, Any]:
    """The method's own knobs and those it shares with others, as the browser draws them."""
    method, said = METHODS[recipe.method], desk_of(recipe)
    groups = {
        "": [_row(knob, said, recipe) for knob in method.knobs if knob.first],
        "More": [_row(knob, said, recipe) for knob in method.knobs if not knob.first],
        "Space and shaper": list(_shaping_rows(method, said, recipe)),
    }
    return {"method": method.id, "groups": [{"title": title, "rows": rows} for title, rows in groups.items() if rows]}


def desk(recipe: Recipe, *columns: Mapping[str, Any]) -> Desk:
    """What the columns say; where they say nothing, or speak of another method, what the recipe says."""
    now = desk_of(recipe)
    said: dict[str, Any] = {}
    for column in columns:
        if column.get("method") in ("", recipe.method) and isinstance(column.get("said"), dict):
            said |= column["said"]
    by_key = {knob.key: knob for knob in (WEIGHT, *settings_of(METHODS[recipe.method]))}
    plain = {key: _read(by_key[key], said.get(key), value) for key, value in now.knobs.items()}
    rows = {
        key: tuple(_read(by_key[key], raw, value) for raw, value in zip(_list(said.get(key)), values, strict=True))
        if len(_list(said.get(key))) == len(values) else values
        for key, values in now.per_expert.items()
    }  # fmt: skip
    return Desk(recipe.method, plain, rows)  # pyright: ignore[reportArgumentType]


def _shaping_rows(method: Method, said: Desk, recipe: Recipe) -> Iterable[dict[str, Any]]:
    """Space and shaper; a shaper's own knobs are there while it is chosen."""
    shared = {knob.key for knob in settings_of(method)}
    owner = {knob.key: shaper.id for shaper in SHAPERS.values() for knob in shaper.knobs}
    yield from (_row(knob, said, recipe) for knob in SHAPING if knob.key in shared and knob.key not in owner)
    if "shaper" in shared:
        for shaper in SHAPERS.values():
            when = {"when": f"shaper={shaper.id}"}
            yield {"kind": "note", "help": shaper.summary, **when}
            yield from (_row(knob, said, recipe) | when for knob in shaper.knobs)


def _row(knob: Knob, said: Desk, recipe: Recipe) -> dict[str, Any]:
    row: dict[str, Any] = {"key": knob.key, "kind": knob.kind, "label": knob.label, "help": knob.help}
    if knob.needs and not isinstance(dict(recipe.parameters).get(knob.needs[0]), tuple):  # else by layer or tensor
        choice, *values = knob.needs
        row["when"] = f"{choice}={'|'.join(values)}"
    if knob.kind == "number":
        row |= {"low": knob.low, "high": knob.high, "step": knob.step, "start": knob.screen}
    if knob.kind == "choice":
        row["choices"] = knob.choices
    shared = dict(recipe.parameters).get(knob.key)
    if not knob.per_expert:
        value = said.knobs[knob.key]
        return row | _varies(knob, shared) | {"value": ", ".join(value) if isinstance(value, tuple) else value}
    names = names_of(recipe)
    role = roles(names)
    experts = [
        {"name": name, "role": role[name]} | _varies(knob, dict(expert.parameters).get(knob.key, shared))
        for name, expert in zip(names, recipe.experts, strict=True)
    ]
    return row | {"experts": experts, "value": said.per_expert[knob.key]}


def _varies(knob: Knob, setting: Setting) -> dict[str, bool]:
    """Marks a number that the recipe gives by layer or tensor: its slider shows one for all."""
    return {"varies": True} if knob.kind == "number" and isinstance(setting, tuple) else {}


def _read(knob: Knob, raw: Any, now: Value) -> Value:
    """The browser's word for one value; `now` where it is none that this knob can have."""
    if knob.kind == "globs" and isinstance(raw, str):
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    if knob.kind == "number" and isinstance(raw, int | float) and math.isfinite(raw):
        return float(raw)
    fits = (knob.kind == "switch" and isinstance(raw, bool)) or (knob.kind == "choice" and raw in knob.choices)
    return raw if fits else now


def _list(raw: Any) -> list[Any]:
    return raw if isinstance(raw, list) else []
