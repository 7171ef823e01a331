"""Heat maps over layer x kind: conflicts, directions kept, tails."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from merging.look import Conflict, Family, Look, Matrix, MatrixView, Measure, gather
from merging.plots.picture import SYMBOLS, VALUES_UP_TO, Picture, grid_layout, grid_trace, roles, rounded, text
from merging.plots.scale import scale_of, signed

HEIGHT = 224
Row = int | Literal["worst", "mean"]
_SAYS: dict[Measure, str] = {
    "sign": "%{text} of 100 opposed",
    "cosine": "cosine × 100: %{text}",
    "shared": "%{text} of 100 directions shared",
    "interference": "interference × 100: %{text}",
    "kept": "points %{z:.0f} of 100 its way",
    "output": "keeps %{z:.0f} of 100 of its output",
}
MEASURES: dict[Measure, str] = {
    "sign": "Sign conflict",
    "cosine": "Cosine",
    "shared": "Shared directions",
    "interference": "Interference",
    "kept": "Kept",
    "output": "Output kept",
}


def rows_shown(conflict: Conflict, picked: int = 0) -> tuple[Row, ...]:
    """Up to three maps abreast: all of them, or else the worst of each cell, the picked one and the mean."""
    n = len(conflict.rows)
    return tuple(range(n)) if n <= 3 else ("worst", min(picked, n - 1), "mean")


def row_values(conflict: Conflict, row: Row) -> np.ndarray:
    """(kinds, layers), NaN where the model has no such matrix."""
    if isinstance(row, int):
        return conflict.values[row]
    values = conflict.values
    gap = np.isnan(values).all(axis=0)
    if row == "mean":
        reduced = np.nanmean(np.where(gap, 0, values), axis=0)
    else:
        reduced = np.take_along_axis(values, _worst(conflict)[None], axis=0)[0]
    return np.where(gap, np.nan, reduced)


def row_name(conflict: Conflict, row: Row) -> str:
    if isinstance(row, int):
        return " and ".join(conflict.rows[row])
    return {"worst": "worst of all", "mean": "mean of all"}[row]


def conflict_map(look: Look, measure: Measure, row: Row, open_matrix: Matrix | None,
                 held: Mapping[str, str] | None = None) -> Picture:  # fmt: skip
    """`held`: tensor name -> the model that a lock takes it from; its cell carries that model's mark."""
    conflict = look.conflicts[measure]
    scale = scale_of(conflict)
    values = 100 * row_values(conflict, row)
    who = [[" and ".join(conflict.rows[i]) for i in line] for line in _worst(conflict)] if row == "worst" else None
    says = _SAYS[measure] + ("<br>%{customdata[2]}" if who else "")
    low, high = sorted((scale.first, scale.last))
    unmeasured = measure == "output" and not np.isfinite(conflict.values).any()
    picture = _map(
        look.family, np.zeros_like(values) if unmeasured else values, None if unmeasured else open_matrix,
        "not measured yet" if unmeasured else says, printed=values,
        ramp=scale.ramp, low=low, high=high, reverse=scale.first > scale.last,
        extra=[[text(name, 40) for name in line] for line in who] if who else None,
        label=f"{MEASURES[measure]}, {row_name(conflict, row)}, by layer and kind of matrix",
    )  # fmt: skip
    picture.figure["data"] += _marks(look.family, held or {})
    if unmeasured:
        picture.figure["layout"]["annotations"] = [_note("Not measured yet.")]
    return picture


def kept_map(look: Look, expert: str, open_matrix: Matrix | None) -> Picture:
    """Directions the method keeps of one expert: the count is printed, the share of all directions coloured."""
    counts = per_matrix(look, lambda view: next((s.kept for s in view.spectra if s.model == expert), None))
    whole = per_matrix(look, lambda view: min(view.matrix.shape))
    cuts = bool(np.isfinite(counts).any())
    picture = _map(
        look.family, 100 * counts / whole if cuts else 0 * whole, open_matrix if cuts else None,
        "keeps %{text} of %{customdata[2]} directions" if cuts else "all %{customdata[2]} directions",
        ramp="wash", low=0, high=100, printed=counts,
        extra=[[None if np.isnan(n) else int(n) for n in line] for line in whole],
        label=f"Directions kept from {expert}, by layer and kind of matrix",
    )  # fmt: skip
    if not cuts:
        picture.figure["layout"]["annotations"] = [_note("This method cuts no directions.")]
    return picture


def tail_map(look: Look, expert: str, what: Literal["mass", "weight"], open_matrix: Matrix | None) -> Picture:
    """mass: share of L1 mass beyond the outlier threshold. weight: what the method gives the expert's entries there.

    A weight runs from 0 to 2, so that the middle of the wash is 1, untouched.
    """
    field = {"mass": "mass", "weight": "outlier_weight"}[what]
    values = per_matrix(look, lambda v: next((getattr(t, field) for t in v.tails if t.model == expert), None))
    says = {"mass": "%{text} of 100 of its change is outliers", "weight": "outlier weight × 100: %{text}"}[what]
    name = {"mass": "Mass beyond the outlier threshold", "weight": "Outlier weight"}[what]
    return _map(
        look.family, 100 * values, open_matrix, says, ramp="wash", low=0, high={"mass": 100, "weight": 200}[what],
        label=f"{name}, {expert}, by layer and kind of matrix",
    )  # fmt: skip


def per_matrix(look: Look, read: Callable[[MatrixView], float | None]) -> np.ndarray:
    """`read(view)` of every matrix in its place, NaN where there is none."""
    each = ((view.matrix, read(view)) for view in look.views.values())
    return gather(look.family, 1, ((matrix, [np.nan if value is None else value]) for matrix, value in each))[0]


def _map(family: Family, values: np.ndarray, open_matrix: Matrix | None, says: str, *, ramp: str, low: float,
         high: float, label: str, reverse: bool = False, printed: np.ndarray | None = None,
         extra: list | None = None) -> Picture:  # fmt: skip
    layers = range(family.n_layers)
    shown = values if printed is None else printed
    trace = grid_trace(family, layers, rounded(values, 1), extra) | {
        "zmin": low,
        "zmax": high,
        "colorscale": f"@@{ramp}",
        "reversescale": reverse,
        "text": [["" if np.isnan(v) else _printed(v) for v in line] for line in shown],
        "hovertemplate": f"<b>layer %{{x}} · %{{customdata[1]}}</b><br>{says}<extra></extra>",
    }
    if family.n_layers <= VALUES_UP_TO:
        trace["meta"] = "values"
    layout = grid_layout(family, layers, open_matrix, HEIGHT)
    return Picture({"data": [trace], "layout": layout}, {}, label, HEIGHT)


def _printed(value: float) -> str:
    """What fits into a cell: one far below would leave no room for a number in any."""
    return "<−99" if round(float(value)) < -100 else signed(value)


def _marks(family: Family, held: Mapping[str, str]) -> list[dict]:
    """The mark of each cell's holder, in its upper left corner, on a rim of paper."""
    colours = roles(family.experts)
    cells = {(m.layer, m.kind): (m.layer - 0.36, family.kinds.index(m.kind) - 0.22, colours[held[m.name]])
             for m in family.matrices if m.name in held}  # fmt: skip
    if not cells:
        return []
    x, y, roles_ = zip(*cells.values(), strict=True)
    small = family.n_layers > VALUES_UP_TO
    marker = {
        "symbol": [SYMBOLS[role] for role in roles_],
        "color": [f"@{role}" for role in roles_],
        "size": 5 if small else 9,
        "opacity": 1,
        "line": {"color": "@paper", "width": 1 if small else 1.5},
    }
    return [{"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "marker": marker, "hoverinfo": "skip"}]


def _worst(conflict: Conflict) -> np.ndarray:
    """Which row is worst in each cell: most conflict, or least in common."""
    sign = -1 if conflict.measure in ("cosine", "kept") else 1
    return np.argmax(np.nan_to_num(sign * conflict.values, nan=-np.inf), axis=0)


def _note(words: str) -> dict:
    return {"text": words, "x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False,
            "bgcolor": "@paper", "borderpad": 4, "font": {"color": "@ink3"}}  # fmt: skip
