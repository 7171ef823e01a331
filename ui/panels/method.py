"""Method: preset, method and its card. The knobs themselves come from ui/controls.py."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from merging.drawn import drawn_shares
from merging.method import Method
from merging.methods import METHODS
from merging.plan import check
from merging.plots import roles
from merging.recipe import Expert, Recipe
from ui.pieces import static
from ui.session import Session, names_of, recipe_of

_OWN = "Own settings"
_UNDO = "Undo takes back the last step."


@dataclass(frozen=True)
class MethodPanel:
    preset: gr.Dropdown
    method: gr.Dropdown
    card: gr.HTML
    measure: gr.Column  # there while the method needs a measurement that is not made
    measure_now: gr.Button
    texts: gr.UploadButton  # the same by texts of the visitor's
    more: gr.Button  # there while it could merge by more texts than it does
    roll: gr.Button  # there for a method that draws at random


def build_preset(presets: Mapping[str, Recipe]) -> gr.Dropdown:
    """Stands above the experts, because a preset sets their weights too."""
    return gr.Dropdown(
        [*presets, (_OWN, "")], value=next(iter(presets), None), label="Preset", filterable=False, interactive=True,
        elem_id="preset",
    )  # fmt: skip


def build(preset: gr.Dropdown, method: str) -> MethodPanel:
    static('<h2 class="part">Method</h2>')
    chosen = gr.Dropdown(
        [(m.title, m.id) for m in sorted(METHODS.values(), key=lambda m: m.title.lower())],
        value=method, label="Method", show_label=False, interactive=True, elem_id="method",
    )  # fmt: skip
    card = static(card_html(METHODS[method]), elem_id="card", elem_classes=["about"])
    with gr.Column(visible=False, elem_id="measure") as measure:
        measure_now = gr.Button("Measure the experts", variant="primary")
        texts = gr.UploadButton("By texts of your own…", file_types=[".jsonl"], file_count="single", size="sm")
    more = gr.Button(size="sm", visible=False, elem_id="more")
    roll = gr.Button(visible=METHODS[method].random, elem_id="roll")
    return MethodPanel(preset, chosen, card, measure, measure_now, texts, more, roll)


def draw_more(each: int) -> dict[str, Any]:
    """How many texts it would be measured on next; none: nothing to press."""
    return gr.update(visible=bool(each), value=f"Measure on up to {each} texts each")


def draw_roll(recipe: Recipe) -> dict[str, Any]:
    """The button says which draw is on the desk."""
    return gr.update(visible=METHODS[recipe.method].random, value=f"Roll again · seed {recipe.seed}")


def card_html(method: Method, notice: str = "", measured: str = "") -> str:
    paper = method.paper
    note = f'<p class="help">{escape(method.note)}</p>' if method.note else ""
    told = f'<p class="help">{escape(measured)}</p>' if measured else ""
    say = f'<p class="notice">{escape(notice)}</p>' if notice else ""
    return (
        f"<p>{escape(method.summary)}</p>"
        f'<p class="help">{escape(paper.title)} · {paper.year} · '
        f'<a href="{escape(paper.url)}" target="_blank" rel="noreferrer">paper</a></p>{note}{told}{say}'
    )


def notice(session: Session) -> str:
    """What the recipe says of itself, as a preset does; then what the method does not take of the desk: some of the
    experts, or their weights; and what it has drawn instead.
    """
    said = " ".join(one for one in (session.recipe.note, _left_out(session), _drawn(session)) if one)
    # A line that went with the first step away from a preset would move the slider under the pointer.
    return said or (_UNDO if session.past else "")


def _left_out(session: Session) -> str:
    merged = recipe_of(session)
    if len(merged.experts) == len(session.recipe.experts):
        return "" if METHODS[merged.method].uses_weight else "The weights above change nothing here."
    names = " and ".join(expert.name for expert in merged.experts)
    count = "one expert" if len(merged.experts) == 1 else f"{len(merged.experts)} experts"
    return f"Merges {count} only, here {names}. Give weight 0 to those to leave out."


def _drawn(session: Session) -> str:
    plan = check(recipe_of(session)).plan if METHODS[session.recipe.method].draws else None
    shares, names = drawn_shares(plan) if plan else [], names_of(session.recipe)
    if len(shares) != len(names):  # the base may stand among the models
        return ""
    said = ", ".join(f"{name} {round(100 * share)}" for name, share in zip(names, shares, strict=True))
    return f"Shares drawn, of 100: {said}."


def apply_preset(recipe: Recipe, preset: Recipe) -> Recipe:
    """The preset's method and numbers on this recipe's models. Those of its harmless expert are for the one of that
    name, wherever it stands; further experts take the last expert's numbers.
    """
    numbers = {expert.name: expert.parameters for expert in preset.experts}
    role = roles(names_of(recipe))
    experts = tuple(
        Expert(expert.model, numbers.get(role[name], preset.experts[-1].parameters))
        for expert, name in zip(recipe.experts, names_of(recipe), strict=True)
    )
    return replace(
        recipe, method=preset.method, parameters=preset.parameters, experts=experts, seed=preset.seed,
        name=preset.name, note=preset.note,
    )  # fmt: skip


def preset_of(recipe: Recipe, presets: Mapping[str, Recipe]) -> str:
    """The preset whose numbers these are, if any."""
    return next((name for name, preset in presets.items() if apply_preset(recipe, preset) == recipe), "")
