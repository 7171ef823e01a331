"""Board: what the merge passes and fails, against the base and each expert. A score belongs to one digest."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from eval.board import Scores
from merging.analysis import Look
from ui.pieces import static
from ui.services import Services
from ui.session import Session


@dataclass(frozen=True)
class BoardPanel:
    finding: gr.HTML
    empty: gr.Column
    score: gr.Button
    outputs: set[Component]


def build() -> BoardPanel:
    finding = static(elem_classes=["find"])
    with gr.Column(elem_classes=["empty"]) as empty:
        static("<p>This merge has not been scored.</p><p class='help'>Scoring asks 90 short questions.</p>")
        score = gr.Button("Score this merge", variant="primary")
    return BoardPanel(finding, empty, score, {finding, empty})


def draw(panel: BoardPanel, services: Services, session: Session, look: Look) -> dict[Component, Any]:
    return {panel.empty: gr.update(visible=True)}


def scores_of(services: Services, digest: str) -> Scores | None:
    return None
