"""Every merge of these models that was scored: the trade-off between them, and the way back to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from eval.judging.probes import Probe
from eval.scoring.against import against
from eval.scoring.board import Scores
from eval.scoring.planes import HEIGHT, chances, trade_off, tries_table
from eval.scoring.tries import Try
from ui.figure import Figure
from ui.history import differences, words
from ui.marks import label
from ui.pieces import Output, static, table_value
from ui.score_findings import tried_finding

_MOST = 60  # the latest, so that the picture stays quick


@dataclass(frozen=True)
class TriedPanel:
    column: gr.Column
    finding: gr.HTML
    trade: Figure
    load: gr.Dropdown
    first: gr.Dropdown
    second: gr.Dropdown
    compared: gr.HTML
    table: gr.Dataframe

    @property
    def outputs(self) -> set[Output]:
        return {self.column, self.finding, self.trade, self.load, self.first, self.second, self.compared, self.table}  # pyright: ignore


def build() -> TriedPanel:
    with gr.Column(visible=False, elem_id="tried") as column:
        finding = static(elem_classes=["find"])
        with gr.Row(elem_classes=["duo"]):
            with gr.Column(scale=6, min_width=0):
                static("<h3>Helpful over harmless <small>colour: honest · size: broken · rim: how surely among the best"
                       "</small></h3>", elem_classes=["pic"])  # fmt: skip
                trade = Figure(height=HEIGHT)
                with gr.Accordion("Read the tries as a table", open=False, elem_classes=["twin"]):
                    table = gr.Dataframe(interactive=False, show_label=False, wrap=True)
            with gr.Column(scale=6, min_width=0):
                load = gr.Dropdown([], value=None, label="Back to", info="Loads the settings of a scored merge.",
                                   interactive=True, filterable=False, elem_id="back-to")  # fmt: skip
                with gr.Row():
                    first = gr.Dropdown([], value=None, label="Compare", interactive=True, filterable=False,
                                        min_width=120, elem_id="compare")  # fmt: skip
                    second = gr.Dropdown([], value=None, label="with", interactive=True, filterable=False,
                                         min_width=120, elem_id="compare-with")  # fmt: skip
                compared = static(elem_classes=["sheet"], elem_id="compared")
    return TriedPanel(column, finding, trade, load, first, second, compared, table)


def draw(
    panel: TriedPanel, tries: Sequence[Try], probes: Sequence[Probe], now: str, sources: Mapping[str, Scores]
) -> dict[Output, Any]:
    """`now`: digest of the merge on the desk; `sources`: scores of base and experts, where they are at hand."""
    shown = tries[-_MOST:]
    if not shown:
        return {panel.column: gr.update(visible=False)}
    called, sure = [words(one) for one in shown], chances(shown, probes)
    on_desk = next((one.key for one in shown if one.digest == now), None)
    choices = [(f"{said} ({one.began[11:16]})", one.key) for one, said in zip(shown, called, strict=True)][::-1]
    return {
        panel.column: gr.update(visible=True),
        panel.finding: tried_finding(shown, sure, now),
        panel.trade: trade_off(shown, called, sure, now, sources),
        panel.load: gr.update(choices=choices, value=on_desk),
        panel.first: gr.update(choices=choices),
        panel.second: gr.update(choices=choices),
        panel.table: table_value(tries_table(shown, called, sure)),
    }  # pyright: ignore


def compared_html(a: Try, b: Try, probes: Sequence[Probe]) -> str:
    """The first minus the second: scores with paired intervals, and the lines in which their recipes differ."""
    found = against(probes, {"first": a.outcomes, "second": b.outcomes}, "first")
    head = "".join(f'<th scope="col">{label(one.h, one.h)}</th>' for one in found)
    cells = "".join(f"<td>{escape(one.words()).replace(': ', ':<br>')}</td>" for one in found)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(mine)}</td><td>{escape(theirs)}</td></tr>'
        for name, mine, theirs in differences(a, b)
    )
    heads = '<td></td><th scope="col">first</th><th scope="col">second</th>'
    other = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        f'<table><thead><tr><td></td>{head}</tr></thead><tbody><tr><th scope="row">the first minus the second</th>'
        f"{cells}</tr></tbody></table>{other}"
    )
