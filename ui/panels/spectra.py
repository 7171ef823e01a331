"""Spectra: how strong each direction of a delta is, where a method cuts, and what the merge makes of it."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from merging.look import Look
from merging.plots import (
    awaited,
    kept_map,
    kept_table,
    matrix_spectrum,
    roles,
    spectra_sheet,
    spectrum_table,
    tail_map,
    tail_table,
)
from ui.figure import Figure
from ui.findings import kept_finding, spectra_finding, tail_finding
from ui.marks import finding, label
from ui.panels.map import opened
from ui.pieces import ABREAST, Output, maps_abreast, static, table_value
from ui.session import Quantity, Row, Session

HEIGHT = 400
ROW_HEIGHT = 224
QUANTITIES: dict[Quantity, str] = {"strength": "Strength", "energy": "Energy"}
ROWS: dict[Row, str] = {"kept": "Directions kept", "mass": "Outlier mass", "weight": "Outlier weight"}


@dataclass(frozen=True)
class SpectraPanel:
    finding: gr.HTML
    quantity: gr.Radio
    title: gr.HTML
    matrix: Figure
    sheet: Figure
    row_finding: gr.HTML
    row: gr.Radio
    first: gr.Dropdown
    columns: tuple[gr.Column, ...]
    titles: tuple[gr.HTML, ...]
    maps: tuple[Figure, ...]
    twin: gr.Accordion
    table: gr.Dataframe
    row_table: gr.Dataframe

    @property
    def pictures(self) -> set[Output]:
        return {self.finding, self.title, self.matrix, self.sheet, self.row_finding, self.first, *self.columns,
                *self.titles, *self.maps}  # fmt: skip

    @property
    def outputs(self) -> set[Output]:
        return {*self.pictures, self.table, self.row_table}


def build() -> SpectraPanel:
    with gr.Row(elem_classes=["top"]):
        finding = static(elem_classes=["find"])
        quantity = gr.Radio(
            [(text, key) for key, text in QUANTITIES.items()], value="strength", show_label=False, label="Curves show",
            elem_classes=["seg"], interactive=True, container=False,
        )  # fmt: skip
    with gr.Row(elem_classes=["duo"]):
        with gr.Column(min_width=0):
            title = static(elem_classes=["pic"])
            matrix = Figure(height=HEIGHT)
        with gr.Column(min_width=0):
            static("<h3>Every matrix <small>same places as the map · click to open</small></h3>", elem_classes=["pic"])
            sheet = Figure(height=HEIGHT)
    with gr.Row(elem_classes=["top"]):
        row_finding = static(elem_classes=["find"])
        row = gr.Radio(
            [(text, key) for key, text in ROWS.items()], value="kept", show_label=False, label="Each expert's",
            elem_classes=["seg"], interactive=True, container=False,
        )  # fmt: skip
    first = gr.Dropdown([], label="First expert shown", visible=False, interactive=True, elem_classes=["slim"])
    columns, titles, maps = maps_abreast()
    with gr.Accordion("Read the spectra as tables", open=False, elem_classes=["twin"]) as twin:
        table = gr.Dataframe(interactive=False, label="Strength by direction, open matrix", wrap=True)
        row_table = gr.Dataframe(interactive=False, label="Every matrix", wrap=True)
    return SpectraPanel(
        finding, quantity, title, matrix, sheet, row_finding, row, first, columns, titles, maps,
        twin, table, row_table,
    )  # fmt: skip


def draw(panel: SpectraPanel, look: Look, session: Session, before: Look | None) -> dict[Output, Any]:
    """Everything on the tab; after a move only what can have changed since `before`, which was drawn here last."""
    matrix = opened(look, session)
    if not look.views:
        return _draw_early(panel, look, session)
    updates: dict[Output, Any] = {
        panel.finding: spectra_finding(look, matrix),
        panel.matrix: matrix_spectrum(look.views[matrix.name], session.quantity, HEIGHT),
        panel.sheet: spectra_sheet(look, matrix),
    }
    names = _shown(look.family.experts, session.first)
    if before is None or _row_table(before, session.row) != _row_table(look, session.row):
        kept = session.row == "kept"
        updates[panel.row_finding] = kept_finding(look) if kept else tail_finding(look)
        for name, figure in zip(names, panel.maps, strict=False):
            updates[figure] = kept_map(look, name, matrix) if kept else tail_map(look, name, session.row, matrix)  # pyright: ignore
    if before is None:
        updates |= _around(panel, look, session, names)
    return updates


def _draw_early(panel: SpectraPanel, look: Look, session: Session) -> dict[Output, Any]:
    """Nothing that is left of another family."""
    return {
        **_around(panel, look, session, _shown(look.family.experts, session.first)),
        panel.finding: finding("The spectra follow when all is read.", "The exact maps of signs come before."),
        panel.row_finding: "",
        panel.matrix: awaited(HEIGHT),
        panel.sheet: awaited(HEIGHT),
        **dict.fromkeys(panel.maps, awaited(ROW_HEIGHT)),
    }


def draw_tables(panel: SpectraPanel, look: Look, session: Session) -> dict[Output, Any]:
    view = look.views[opened(look, session).name]
    return {
        panel.table: table_value(spectrum_table(view)),
        panel.row_table: table_value(_row_table(look, session.row)),
    }


def _around(panel: SpectraPanel, look: Look, session: Session, names: tuple[str, ...]) -> dict[Output, Any]:
    """Titles, pickers and tables: what a slider leaves as it is."""
    matrix, experts = opened(look, session), look.family.experts
    colours = roles(experts)
    m, n = matrix.shape
    updates: dict[Output, Any] = {
        panel.title: f"<h3>Layer {matrix.layer} · {escape(matrix.kind)} <small>{m} × {n}</small></h3>",
        panel.first: gr.update(
            choices=[(name, i) for i, name in enumerate(experts)], value=session.first, visible=len(experts) > ABREAST
        ),
    }
    about = {"kept": f"of {min(m, n)}", "mass": "of 100 of its change", "weight": "× 100"}[session.row]
    for i, (column, title) in enumerate(zip(panel.columns, panel.titles, strict=True)):
        updates[column] = gr.update(visible=i < len(names))
        if i < len(names):
            who = label(names[i], colours[names[i]])
            updates[title] = f"<h3>{ROWS[session.row]}: {who} <small>{about}</small></h3>"
    return updates


def _shown(experts: tuple[str, ...], first: int) -> tuple[str, ...]:
    """Three at a time, going round."""
    if len(experts) <= ABREAST:
        return experts
    return tuple(experts[(first + i) % len(experts)] for i in range(ABREAST))


def _row_table(look: Look, row: Row) -> tuple[list[str], list[list[Any]]]:
    return kept_table(look) if row == "kept" else tail_table(look)
