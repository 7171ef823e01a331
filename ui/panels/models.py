"""Models: which family of base and experts is merged."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from merging.errors import UserError
from merging.recipe import Recipe
from ui.pieces import Output
from ui.problem import problem_place
from ui.session import MAX_EXPERTS

TOWN, OWN = "town", "own"


@dataclass(frozen=True)
class ModelsPanel:
    family: gr.Dropdown
    own: gr.Column
    base: gr.Textbox
    experts: gr.Textbox
    open: gr.Button
    problem: gr.HTML


def build() -> ModelsPanel:
    family = gr.Dropdown(
        [("Town · 1.3 M · built in", TOWN), ("Your own models…", OWN)],
        value=TOWN, label="Family", filterable=False, interactive=True, elem_id="family",
    )  # fmt: skip
    with gr.Column(visible=False, elem_id="own") as own:
        base = gr.Textbox(
            label="Base", info="A folder, or OWNER/NAME of the Hub.", max_lines=1, placeholder="models/base",
            interactive=True,
        )  # fmt: skip
        experts = gr.Textbox(
            label="Experts", info=f"One a line, up to {MAX_EXPERTS}; base+adapter for LoRA.", lines=3, interactive=True,
            placeholder="models/helpful\nOWNER/NAME@REVISION",
        )  # fmt: skip
        open_ = gr.Button("Open models", variant="secondary")
    problem = problem_place()
    return ModelsPanel(family, own, base, experts, open_, problem)


def shown(panel: ModelsPanel, recipe: Recipe) -> dict[Output, Any]:
    """The models on the desk, as they would be typed."""
    experts = "\n".join(expert.model for expert in recipe.experts)
    return {panel.base: recipe.base or "", panel.experts: experts}


def folders(base: str, experts: str) -> tuple[str, tuple[str, ...]]:
    """What was typed, as sources."""
    listed = tuple(line.strip() for line in experts.splitlines() if line.strip())
    if not base.strip() or not listed:
        raise UserError("E_FAMILY", "A family is one base and at least one expert.",
                        do="Type both, then open.")  # fmt: skip
    if len(listed) > MAX_EXPERTS:
        raise UserError("E_FAMILY", f"{len(listed)} experts are listed; the page shows up to {MAX_EXPERTS}.",
                        do="Larger recipes run on the command line.")  # fmt: skip
    return base.strip(), listed
