"""Knob -> component. Every method's controls are built once, from the registry, and shown or hidden whole.

So a move rebuilds nothing, and a method's values wait where they were left when another one is tried.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.blocks import BlockContext
from gradio.components import Component

from merging.method import WEIGHT, Knob, Method, Value
from merging.methods import METHODS
from merging.plots.picture import COLOURS
from merging.recipe import Recipe
from merging.shapers import SHAPERS
from merging.shaping import SHAPING
from ui.marks import roles
from ui.pieces import static
from ui.session import MAX_EXPERTS, Desk, desk_of, names_of, settings_of


@dataclass(frozen=True)
class MethodControls:
    group: gr.Column
    knobs: dict[str, Component]
    per_expert: dict[str, tuple[gr.Slider, ...]]


@dataclass(frozen=True)
class ShapingControls:
    """What every method on deltas shares: space and shaper, built once."""

    group: gr.Accordion
    knobs: dict[str, Component]
    shapers: dict[str, gr.Column]  # each shaper's own knobs, shown while it is chosen


@dataclass(frozen=True)
class Controls:
    """All components that make up the desk."""

    method: gr.Dropdown
    weights: tuple[gr.Slider, ...]
    methods: dict[str, MethodControls]
    shaping: ShapingControls

    @property
    def inputs(self) -> set[Component]:
        own = (c for m in self.methods.values() for c in _all(m))
        return {self.method, *self.weights, *own, *self.shaping.knobs.values()}

    @property
    def hands(self) -> list[tuple[Component, ...]]:
        """Controls that move together: one method's, and the weights. An event brings only those of its own hand,
        because Gradio reads every input of an event anew."""
        shared = tuple(self.shaping.knobs.values())
        return [self.weights, shared, *(tuple(_all(m)) for m in self.methods.values() if _all(m))]

    @property
    def outputs(self) -> list[Component | BlockContext]:
        return [*self.inputs, *self.groups]

    @property
    def groups(self) -> list[gr.Column | gr.Accordion]:
        return [*(m.group for m in self.methods.values()), self.shaping.group, *self.shaping.shapers.values()]


def build_method(method: Method, shown: bool) -> MethodControls:
    with gr.Column(visible=shown, elem_classes=["knobs"]) as group:
        knobs: dict[str, Component] = {}
        per_expert: dict[str, tuple[gr.Slider, ...]] = {}
        _add([k for k in method.knobs if k.first], knobs, per_expert)
        if rest := [k for k in method.knobs if not k.first]:
            with gr.Accordion("More", open=False, elem_classes=["more"]):
                _add(rest, knobs, per_expert)
    return MethodControls(group, knobs, per_expert)


def build_shaping(method: Method) -> ShapingControls:
    own = {shaper.id: [knob.key for knob in shaper.knobs] for shaper in SHAPERS.values()}
    plain = [knob for knob in SHAPING if not any(knob.key in keys for keys in own.values())]
    with gr.Accordion("Space and shaper", open=False, elem_classes=["more"], visible=_is_shaped(method)) as group:
        knobs = {knob.key: component(knob) for knob in plain}
        shapers = {}
        for shaper in SHAPERS.values():
            with gr.Column(visible=False, elem_classes=["knobs"]) as shapers[shaper.id]:
                static(f'<p class="help">{shaper.summary}</p>')
                knobs |= {knob.key: component(knob) for knob in shaper.knobs}
    return ShapingControls(group, knobs, shapers)


def build_weights() -> tuple[gr.Slider, ...]:
    static('<h2 class="part">Experts <small>weight</small></h2>')
    return _sliders(WEIGHT)


def component(knob: Knob) -> Component:
    """One control for one knob, at the value the page starts from."""
    common: dict[str, Any] = {"label": knob.label, "info": knob.help, "elem_classes": ["knob"], "interactive": True}
    if knob.kind == "number":
        return gr.Slider(knob.low, knob.high, knob.screen, step=knob.step, buttons=["reset"], **common)  # pyright: ignore
    if knob.kind == "switch":
        return gr.Checkbox(bool(knob.screen), **common)
    if knob.kind == "choice":
        return gr.Dropdown(list(knob.choices), value=str(knob.screen), filterable=False, **common)
    return gr.Textbox(_text(knob.screen), max_lines=1, placeholder="none", **common)


def moves(hand: tuple[Component, ...]) -> list[Any]:
    """The events of a hand on these controls. `change` is not among them: it fires also while an undo or a preset sets
    the controls one by one, and would take the half-way state for a move. `release` is there for Reset."""
    sliders = [control.release for control in hand if isinstance(control, gr.Slider)]
    return [*(control.input for control in hand), *sliders]  # pyright: ignore[reportAttributeAccessIssue]


def desk(controls: Controls, values: Mapping[Component | BlockContext, Any], recipe: Recipe) -> Desk:
    """What the controls say by the values that an event brought; the others say what the recipe says."""
    method = values[controls.method] if values[controls.method] in METHODS else recipe.method
    said, chosen, n = desk_of(replace(recipe, method=method)), controls.methods[method], len(recipe.experts)
    held = {**chosen.knobs, **controls.shaping.knobs}
    knobs = {knob.key: _value(knob, values[held[knob.key]]) if held[knob.key] in values else said.knobs[knob.key]
             for knob in settings_of(METHODS[method]) if not knob.per_expert}  # fmt: skip
    rows = {"weight": controls.weights, **chosen.per_expert}
    per_expert = {k: tuple(float(values[s]) for s in row[:n]) if row[0] in values else said.per_expert[k]
                  for k, row in rows.items()}  # fmt: skip
    return Desk(method, knobs, per_expert)


def show(controls: Controls, recipe: Recipe, before: Recipe | None) -> dict[Component | BlockContext, Any]:
    """Updates that make the controls say what `recipe` says; `before` is what they say now (None: unknown)."""
    wanted, chosen = desk_of(recipe), controls.methods[recipe.method]
    changes: dict[Component | BlockContext, Any] = {}
    held = {**chosen.knobs, **controls.shaping.knobs}
    for knob in settings_of(METHODS[recipe.method]):
        if not knob.per_expert:
            changes[held[knob.key]] = _update(knob, wanted.knobs[knob.key])
    changes |= show_shaper(controls, wanted)
    for key, row in {"weight": controls.weights, **chosen.per_expert}.items():
        knob = METHODS[recipe.method].knob(key) or WEIGHT
        for slider, value in zip(row, wanted.per_expert[key], strict=False):
            changes[slider] = _update(knob, value)
    if before is None or before.method != recipe.method:
        changes |= show_method(controls, recipe.method)
        changes[controls.method] = recipe.method
    if before is None or names_of(before) != names_of(recipe):
        _name(controls, names_of(recipe), changes)
    return changes


def show_method(controls: Controls, method: str) -> dict[Component | BlockContext, Any]:
    groups: dict[Component | BlockContext, Any] = {
        m.group: gr.update(visible=key == method) for key, m in controls.methods.items()
    }
    return groups | {controls.shaping.group: gr.update(visible=_is_shaped(METHODS[method]))}


def show_shaper(controls: Controls, said: Desk) -> dict[Component | BlockContext, Any]:
    chosen = said.knobs.get("shaper")
    return {group: gr.update(visible=key == chosen) for key, group in controls.shaping.shapers.items()}


def _is_shaped(method: Method) -> bool:
    return any(knob.key == "shaper" for knob in settings_of(method))


def _name(controls: Controls, names: tuple[str, ...], changes: dict[Component | BlockContext, Any]) -> None:
    rows = [controls.weights, *(row for m in controls.methods.values() for row in m.per_expert.values())]
    role = roles(names)
    for row in rows:
        for i, slider in enumerate(row):
            name = names[i] if i < len(names) else ""
            look = {
                "visible": bool(name),
                "label": name or f"expert {i + 1}",
                "elem_classes": _classes(role.get(name, COLOURS[i])),
            }
            changes[slider] = gr.update(**{**changes.get(slider, {}), **look})


def _add(knobs: list[Knob], plain: dict[str, Component], per_expert: dict[str, tuple[gr.Slider, ...]]) -> None:
    for knob in knobs:
        if knob.per_expert:
            static(f'<h3>{knob.label}</h3><p class="help">{knob.help}</p>')
            per_expert[knob.key] = _sliders(knob)
        else:
            plain[knob.key] = component(knob)


def _sliders(knob: Knob) -> tuple[gr.Slider, ...]:
    return tuple(
        gr.Slider(
            knob.low,
            knob.high,
            float(knob.screen),  # pyright: ignore[reportArgumentType]
            step=knob.step,
            label=f"expert {i + 1}",
            elem_classes=_classes(COLOURS[i]),
            interactive=True,
            buttons=["reset"],
            visible=i < 3,
        )
        for i in range(MAX_EXPERTS)
    )


def _classes(role: str) -> list[str]:
    return ["knob", "expert", f"r-{role}"]


def _update(knob: Knob | None, value: Value) -> dict[str, Any]:
    if isinstance(value, tuple):
        return gr.update(value=_text(value))
    if knob and knob.kind == "number" and isinstance(value, (int, float)) and not knob.low <= value <= knob.high:
        return gr.update(value=value, minimum=min(value, knob.low), maximum=max(value, knob.high))
    return gr.update(value=value)


def _value(knob: Knob | None, raw: Any) -> Value:
    if knob and knob.kind == "globs":
        return tuple(part.strip() for part in (raw or "").split(",") if part.strip())
    if knob and knob.kind == "number":
        return float(raw)
    return raw


def _text(globs: Value) -> str:
    return ", ".join(globs) if isinstance(globs, tuple) else str(globs)


def _all(method: MethodControls) -> list[Component]:
    return [*method.knobs.values(), *(s for row in method.per_expert.values() for s in row)]
