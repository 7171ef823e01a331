"""Spectra: how strong each direction of a delta is, where a method cuts, and what the merge makes of it."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from merging.analysis import Look
from merging.plots import kept_map, kept_table, matrix_spectrum, roles, spectra_sheet, spectrum_table
from ui.figure import Figure
from ui.findings import spectra_finding
from ui.marks import label
from ui.panels.map import opened
from ui.pieces import Output, static, table_value
from ui.session import MAX_EXPERTS, Session


@dataclass(frozen=True)
class SpectraPanel:
    finding: gr.HTML
    title: gr.HTML
    matrix: Figure
    sheet: Figure
    columns: tuple[gr.Column, ...]
    titles: tuple[gr.HTML, ...]
    kept: tuple[Figure, ...]
    table: gr.Dataframe
    kept_table: gr.Dataframe

    @property
    def outputs(self) -> set[Output]:
        return {self.finding, self.title, self.matrix, self.sheet, *self.columns, *self.titles, *self.kept,  # pyright: ignore
                self.table, self.kept_table}  # fmt: skip


def build() -> SpectraPanel:
    finding = static(elem_classes=["find"])
    with gr.Row(elem_classes=["duo"]):
        with gr.Column(min_width=0):
            title = static(elem_classes=["pic"])
            matrix = Figure(height=400)
        with gr.Column(min_width=0):
            static(
                '<h3>Every matrix <small>same places as the map · click to open</small></h3>',
                elem_classes=["pic"],
            )  # fmt: skip
            sheet = Figure(height=400)
    columns, titles, kept = [], [], []
    with gr.Row(elem_classes=["pairs"]):
        for i in range(MAX_EXPERTS):
            with gr.Column(min_width=0, visible=i < 3) as column:
                columns.append(column)
                titles.append(static(elem_classes=["pic"]))
                kept.append(Figure(height=224))
    with gr.Accordion("Read the spectra as tables", open=False, elem_classes=["twin"]):
        table = gr.Dataframe(interactive=False, label="Strength by direction, open matrix", wrap=True)
        kept_ = gr.Dataframe(interactive=False, label="Directions kept, every matrix", wrap=True)
    return SpectraPanel(finding, title, matrix, sheet, tuple(columns), tuple(titles), tuple(kept), table, kept_)


def draw(panel: SpectraPanel, look: Look, session: Session, before: Look | None) -> dict[Output, Any]:
    matrix = opened(look, session)
    view = look.views[matrix.name]
    colours = roles(look.family.experts)
    updates: dict[Any, Any] = {
        panel.finding: spectra_finding(look, matrix),
        panel.title: f'<h3>Layer {matrix.layer} · {escape(matrix.kind)} '
        f'<small>{matrix.shape[0]} × {matrix.shape[1]}</small></h3>',
        panel.matrix: matrix_spectrum(view, height=400),
        panel.sheet: spectra_sheet(look, matrix),
        panel.table: table_value(spectrum_table(view)),
        panel.kept_table: table_value(kept_table(look)),
    }  # fmt: skip
    if before and before.family == look.family and kept_table(before) == kept_table(look):
        return updates
    for i, (column, title, figure) in enumerate(zip(panel.columns, panel.titles, panel.kept, strict=True)):
        there = i < len(look.family.experts)
        updates[column] = gr.update(visible=there)
        if there:
            name = look.family.experts[i]
            full = min(matrix.shape)
            updates[title] = f"<h3>Directions kept from {label(name, colours[name])} <small>of {full}</small></h3>"
            updates[figure] = kept_map(look, name, matrix)
    return updates
