"""Board: what the merge passes and fails, against the base and each expert. A score belongs to one digest."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from eval.plots import bars, bars_height, scores_table
from merging.plots import roles
from ui.figure import Figure
from ui.findings import board_finding
from ui.marks import label, mark
from ui.pieces import Output, static, table_value
from ui.scores import FIRST, Lost, Scoreboard, lost
from ui.session import MAX_EXPERTS

_MOST_LOST = 10


@dataclass(frozen=True)
class BoardPanel:
    finding: gr.HTML
    empty: gr.Column
    score: gr.Button
    full: gr.Column
    more: gr.Button
    bars: Figure
    lost: gr.HTML
    table: gr.Dataframe

    @property
    def outputs(self) -> set[Output]:
        return {self.finding, self.empty, self.score, self.full, self.more, self.bars, self.lost, self.table}  # pyright: ignore


def build() -> BoardPanel:
    finding = static(board_finding({}), elem_classes=["find"])
    with gr.Column(elem_classes=["empty"]) as empty:
        static(
            "<p>No score belongs to these settings yet.</p>"
            '<p class="help">Scoring asks the merge, the base and each expert 90 short questions; '
            "about 10 s for Town. Sources are asked once.</p>"
        )
        score = gr.Button("Score this merge", variant="primary", elem_id="score")
    with gr.Column(visible=False) as full:
        with gr.Row(elem_classes=["duo"]):
            with gr.Column(scale=6, min_width=0):
                static(
                    "<h3>Share of probes passed <small>faded: 95 % interval · tint: base to best expert</small></h3>",
                    elem_classes=["pic"],
                )
                picture = Figure(height=bars_height(MAX_EXPERTS - 1))
                more = gr.Button("Ask all 900 probes", variant="secondary", elem_id="score-all")
            with gr.Column(scale=6, min_width=0):
                lost_ = static(elem_classes=["lost"])
        with gr.Accordion("Read the scores as a table", open=False, elem_classes=["twin"]):
            table = gr.Dataframe(interactive=False, show_label=False, wrap=True)
    return BoardPanel(finding, empty, score, full, more, picture, lost_, table)


def draw(panel: BoardPanel, board: Scoreboard | None) -> dict[Output, Any]:
    """None: nothing has been scored at these settings."""
    shown = board is not None and "merge" in board.scores
    updates: dict[Any, Any] = {
        panel.finding: board_finding(board.scores if board else {}),
        panel.empty: gr.update(visible=not shown),
        panel.full: gr.update(visible=shown),
    }
    if board is not None and shown:
        updates |= {
            panel.bars: bars(board.scores),
            panel.lost: lost_html(lost(board), len(board.answers["merge"]), tuple(board.scores)),
            panel.table: table_value(scores_table(board.scores)),
            panel.more: gr.update(visible=board.split == FIRST),
        }
    return updates


def lost_html(found: Sequence[Lost], n_probes: int, models: Sequence[str]) -> str:
    """What merging cost: the question, the source that passes, the merge that does not."""
    colours = roles([name for name in models if name not in ("merge", "base")])
    head = f'<h3 class="pic">Lost: a source passes, the merge fails <small>{len(found)} of {n_probes}</small></h3>'
    rows = "".join(
        f'<div><span class="ask">{mark(one.probe.h)}{escape(one.probe.messages[-1].content)}</span>'
        f"{label(one.source, colours[one.source])}<span>{escape(one.source_says)}</span>"
        f"{label('merge', 'merge')}<span>{escape(one.merge_says)} <small>{escape(one.label)}</small></span></div>"
        for one in found[:_MOST_LOST]
    )
    rest = f'<p class="help">and {len(found) - _MOST_LOST} more</p>' if len(found) > _MOST_LOST else ""
    return head + (rows or '<p class="help">Nothing was lost on these probes.</p>') + rest
