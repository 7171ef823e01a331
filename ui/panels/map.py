"""Map: where the experts conflict, layer by layer; a cell is the door to its matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from merging.fit import What
from merging.look import Look, Matrix, MatrixView, Measure
from merging.method import Method
from merging.plots import (
    GATE_HEIGHT,
    MEASURES,
    awaited,
    conflict_map,
    conflict_table,
    gate_strip,
    matrix_spectrum,
    roles,
    row_name,
    rows_shown,
    scale_of,
)
from ui.figure import Figure
from ui.findings import map_finding
from ui.gates import gate_finding
from ui.locking import holders, in_scope
from ui.marks import colour_bar, finding, label, mark, pair
from ui.pieces import ABREAST, Output, maps_abreast, static, table_value
from ui.session import Session, names_of, recipe_of

MERGE = "merge"
MATRIX_HEIGHT = 268


@dataclass(frozen=True)
class MapPanel:
    finding: gr.HTML
    measure: gr.Radio
    fits: gr.Row
    fit: Mapping[What, gr.Button]
    safest: gr.Button
    fitted: gr.HTML
    pair: gr.Dropdown
    columns: tuple[gr.Column, ...]
    titles: tuple[gr.HTML, ...]
    maps: tuple[Figure, ...]
    bar: gr.HTML
    gates: gr.Column  # there while the method has a gate, or densities that differ
    gate_finding: gr.HTML
    gate: Figure
    matrix_title: gr.HTML
    matrix: Figure
    readings: gr.HTML
    source: gr.Radio
    scope: gr.Dropdown
    layer: gr.Dropdown
    kind: gr.Dropdown
    twin: gr.Accordion
    table: gr.Dataframe

    @property
    def pictures(self) -> set[Output]:
        return {self.finding, *self.maps, self.gates, self.gate_finding, self.gate, self.matrix, self.readings,
                self.fits, self.pair, *self.columns, *self.titles, self.bar, self.matrix_title, self.source,
                self.scope, self.layer, self.kind}  # fmt: skip

    @property
    def outputs(self) -> set[Output]:
        return {*self.pictures, self.fitted, self.table}


def build() -> MapPanel:
    with gr.Row(elem_classes=["top"]):
        finding = static(elem_classes=["find"])
        measure = gr.Radio(
            [(text, key) for key, text in MEASURES.items()], value="sign", show_label=False, label="Measure",
            elem_classes=["seg"], interactive=True, container=False,
        )  # fmt: skip
    with gr.Row(visible=False, elem_id="fits") as fits:
        fit: dict[What, gr.Button] = {
            "scale": gr.Button("Fit scale", size="sm", min_width=0),
            "weights": gr.Button("Fit weights", size="sm", min_width=0),
            "densities": gr.Button("LEWIS densities", size="sm", min_width=0),
        }
        safest = gr.Button("Fit for safety", size="sm", min_width=0)
        fitted = static(elem_classes=["help"])
    pair_ = gr.Dropdown([], label="Pair in the middle", visible=False, interactive=True, elem_classes=["slim"])
    columns, titles, maps = maps_abreast()
    bar = static()
    with gr.Column(visible=False, elem_id="gates") as gates:
        gate_finding_ = static(elem_classes=["find"])
        gate = Figure(height=GATE_HEIGHT, elem_id="gate")
    with gr.Row(elem_classes=["drill"]):
        with gr.Column(scale=7, min_width=0):
            matrix_title = static(elem_classes=["pic"])
            matrix = Figure(height=MATRIX_HEIGHT)
        with gr.Column(scale=4, min_width=0):
            readings = static(elem_classes=["readings"])
            source = gr.Radio([MERGE], value=MERGE, label="Take it from", interactive=True, elem_classes=["seg"])
            scope = gr.Dropdown(_scopes(0, "q"), value="matrix", label="Where", show_label=False, filterable=False,
                                interactive=True, elem_id="scope")  # fmt: skip
    with gr.Accordion("Pick by keyboard, or read the map as a table", open=False, elem_classes=["twin"]) as twin:
        with gr.Row():
            layer = gr.Dropdown([], label="Layer", interactive=True)
            kind = gr.Dropdown([], label="Matrix", interactive=True)
        table = gr.Dataframe(interactive=False, show_label=False, wrap=True)
    return MapPanel(finding, measure, fits, fit, safest, fitted, pair_, columns, titles, maps, bar, gates,
                    gate_finding_, gate, matrix_title, matrix, readings, source, scope, layer, kind, twin,
                    table)  # fmt: skip


def draw_fits(panel: MapPanel, method: Method) -> dict[Output, Any]:
    """Only what the method has can be fitted."""
    has = {"scale": method.knob("lambda"), "weights": method.uses_weight, "densities": method.knob("density")}
    return {button: gr.update(visible=bool(has[what])) for what, button in panel.fit.items()}


def opened(look: Look, session: Session) -> Matrix:
    return look.opened(session.focus)


def clicked(look: Look, data: Any) -> Matrix | None:
    """The matrix of a clicked cell; None for anything that is no cell (the browser's word is not trusted)."""
    place = data.get("customdata") if isinstance(data, dict) else None
    if not (isinstance(place, list) and len(place) >= 2 and isinstance(place[0], int)):
        return None
    return look.family.at(place[0], str(place[1]))


def draw(panel: MapPanel, look: Look, session: Session, before: Look | None) -> dict[Output, Any]:
    """Everything on the tab; after a move only what can have changed since `before`, which was drawn here last."""
    matrix = opened(look, session)
    if look.tier in ("sample", "maps"):
        return _draw_early(panel, look, session, matrix)
    if session.measure not in look.conflicts:  # a look that has it is under way
        return {}
    if before is None:
        whole = draw_matrix(panel, look.views[matrix.name]) | _draw_maps(panel, look, session, matrix)
        return whole | _draw_gate(panel, look)
    updates = draw_matrix(panel, look.views[matrix.name])
    updates |= _draw_gate(panel, look) if look.gate or before.gate else {}
    del updates[panel.matrix_title]
    if not _same(before, look, session.measure):
        updates[panel.finding] = map_finding(look, session.measure)
        held = holders(recipe_of(session), look.family.matrices)
        for row, figure in zip(rows_shown(look.conflicts[session.measure], session.pair), panel.maps, strict=False):
            updates[figure] = conflict_map(look, session.measure, row, matrix, held)
    return updates


def draw_table(panel: MapPanel, look: Look, session: Session) -> dict[Output, Any]:
    return {panel.table: table_value(conflict_table(look, session.measure))}


def _draw_early(panel: MapPanel, look: Look, session: Session, matrix: Matrix) -> dict[Output, Any]:
    """The maps that are there already, and nothing that is left of another family."""
    rest: dict[Output, Any] = {panel.matrix_title: matrix_title(matrix), panel.gates: gr.update(visible=False)}
    if look.tier == "sample":  # later the open matrix may be there before the maps
        rest |= {panel.matrix: awaited(MATRIX_HEIGHT), panel.readings: ""}
    if session.measure in look.conflicts:
        return rest | _draw_maps(panel, look, session, matrix)
    says = finding(f"{MEASURES[session.measure]}: the maps follow when all is read.", "Signs and cosines are there.")
    return rest | {panel.finding: says, panel.bar: ""} | {c: gr.update(visible=False) for c in panel.columns}


def _draw_maps(panel: MapPanel, look: Look, session: Session, matrix: Matrix) -> dict[Output, Any]:
    measure = session.measure
    conflict = look.conflicts[measure]
    rows = rows_shown(conflict, session.pair)
    colours = roles(look.family.experts)
    held = holders(recipe_of(session), look.family.matrices)
    updates: dict[Output, Any] = {
        **_draw_source(panel, look, session, matrix, held),
        panel.finding: map_finding(look, measure),
        panel.bar: colour_bar(scale_of(conflict), "open a cell to see its matrix") if rows else _LONELY,
        panel.fits: gr.update(visible=measure == "output" and bool(np.isfinite(conflict.values).any())),
        panel.pair: _pair_picker(look, session),
        panel.layer: gr.update(choices=[str(i) for i in range(look.family.n_layers)], value=str(matrix.layer)),
        panel.kind: gr.update(choices=list(look.family.kinds), value=matrix.kind),
    }
    for i, (column, title, figure) in enumerate(zip(panel.columns, panel.titles, panel.maps, strict=True)):
        updates[column] = gr.update(visible=i < len(rows))
        if i < len(rows):
            row = rows[i]
            names = conflict.rows[row] if isinstance(row, int) else ()
            head = pair(*names, colours) if len(names) == 2 else label(names[0], colours[names[0]]) if names else ""
            updates[title] = f"<h3>{head or escape(row_name(conflict, row).capitalize())}</h3>"
            updates[figure] = conflict_map(look, measure, row, matrix, held)
    return updates


def _draw_gate(panel: MapPanel, look: Look) -> dict[Output, Any]:
    if look.gate is None:
        return {panel.gates: gr.update(visible=False)}
    seen = np.isfinite(look.gate.values).any()
    return {
        panel.gates: gr.update(visible=True),
        panel.gate_finding: gate_finding(look),
        panel.gate: gr.update(value=gate_strip(look), visible=True) if seen else gr.update(visible=False),
    }


def _draw_source(panel: MapPanel, look: Look, session: Session, matrix: Matrix, held: dict[str, str]) -> dict:
    """Who holds what the scope covers; nothing is chosen where that differs from matrix to matrix."""
    found = {held.get(m.name, MERGE) for m in in_scope(look.family, matrix, session.scope)}
    return {
        panel.source: gr.update(choices=[MERGE, "base", *names_of(session.recipe)],
                                value=found.pop() if len(found) == 1 else None),
        panel.scope: gr.update(choices=_scopes(matrix.layer, matrix.kind), value=session.scope),
    }  # fmt: skip


def _scopes(layer: int, kind: str) -> list[tuple[str, str]]:
    return [("this matrix only", "matrix"), (f"all of layer {layer}", "layer"), (f"{kind} in every layer", "kind")]


def draw_matrix(panel: MapPanel, view: MatrixView) -> dict[Output, Any]:
    """The open matrix only: what a move shows first."""
    rough = " · sketch, exact numbers follow" if view.sketched else ""
    title = matrix_title(view.matrix, rough)
    return {panel.matrix_title: title, panel.matrix: matrix_spectrum(view), panel.readings: readings_html(view)}


def matrix_title(matrix: Matrix, more: str = "") -> str:
    m, n = matrix.shape
    return f"<h3>Layer {matrix.layer} · {escape(matrix.kind)} <small>{m} × {n}{more}</small></h3>"


def readings_html(view: MatrixView) -> str:
    """Numbers of the open matrix: a row for each reading, in it a value for each expert in its colour."""
    colours = roles([tail.model for tail in view.tails])
    spectra = {spectrum.model: spectrum for spectrum in view.spectra}
    rows: list[tuple[str, list[str]]] = [
        ("change ÷ base", [f"{t.norm_ratio:.2f}" for t in view.tails]),
        ("directions with half of it", [f"{spectra[t.model].half_energy}" for t in view.tails]),
        ("stable rank", [f"{spectra[t.model].stable_rank:.1f}" for t in view.tails]),
        ("entries near zero, %", [f"{100 * t.sparsity:.0f}" for t in view.tails]),
        ("outliers, % of entries", [f"{100 * t.entries:.1f}" for t in view.tails]),
        ("outliers, % of change", [f"{100 * t.mass:.0f}" for t in view.tails]),
        ("outlier weight", [f"{t.outlier_weight:.2f}" for t in view.tails]),
    ]
    marks = "".join(f'<span title="{escape(t.model)}">{mark(colours[t.model])}</span>' for t in view.tails)
    body = f"<div><dt>each expert here</dt><dd>{marks}</dd></div>" + "".join(
        f"<div><dt>{name}</dt><dd>{''.join(f'<span>{value}</span>' for value in values)}</dd></div>"
        for name, values in rows
    )
    lost = f'<p class="help">{view.dropped} weak directions dropped.</p>' if view.dropped else ""
    return f'<h3 class="pic">This matrix</h3><dl>{body}</dl>{lost}'


_LONELY = '<p class="help">One expert alone has nobody to conflict with.</p>'


def _pair_picker(look: Look, session: Session) -> dict[str, Any]:
    rows = look.conflicts[session.measure].rows
    names = [(" × ".join(row), i) for i, row in enumerate(rows)]
    return gr.update(
        choices=names, value=min(session.pair, len(rows) - 1) if rows else None, visible=len(rows) > ABREAST
    )


def _same(before: Look, look: Look, measure: Measure) -> bool:
    return measure in before.conflicts and np.array_equal(
        before.conflicts[measure].values, look.conflicts[measure].values, equal_nan=True
    )
