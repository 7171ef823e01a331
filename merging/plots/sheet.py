"""The sheet of spectra: the same grid as the maps, a sparkline in each cell."""

from functools import lru_cache
from math import log10

import numpy as np

from merging.look import Look, Matrix
from merging.plots.picture import VALUES_UP_TO, Picture, grid_layout, grid_trace, roles, rounded

_HEIGHT = 400
_INSET = 0.09  # of a cell, at each side
_GAP = np.array([np.nan])  # between two matrices
_NUMBERS = 9000  # coordinates on the whole sheet: keeps it well under 100 KB


def spectra_sheet(look: Look, open_matrix: Matrix | None) -> Picture:
    """Log over log, one scale for all cells; on deep models the twelve layers around the open one."""
    family = look.family
    layers = _window(family.n_layers, open_matrix.layer if open_matrix else 0)
    ground = grid_trace(family, layers, [[0 if family.at(x, kind) else None for x in layers] for kind in family.kinds])
    ground |= {
        "colorscale": [[0, "@well"], [1, "@well"]],
        "hovertemplate": "<b>layer %{x} · %{customdata[1]}</b><br>open<extra></extra>",
    }
    views = [v for v in look.views.values() if v.matrix.layer in layers]
    models = [s.model for s in views[0].spectra] if views else []
    colours = roles([m for m in models if m != "merge"])
    n_curves = max(1, len(views) * len(models))
    points = int(np.clip(_NUMBERS / 2 / n_curves, 8, 28))
    top = max((float(s.values[0]) for v in views for s in v.spectra if s.values.size), default=1.0) or 1.0
    ends = [float(s.values[int(0.9 * (s.values.size - 1))]) for v in views for s in v.spectra[:-1] if s.values.size]
    decades = log10(top / max(top / 1e3, min(ends, default=0))) or 1.0
    longest = max((min(v.matrix.shape) for v in views), default=2)
    lines = []
    for model in models:
        xs, ys = [], []
        for view in views:
            spectrum = next(s for s in view.spectra if s.model == model)
            row = family.kinds.index(view.matrix.kind)
            x, y = _sparkline(spectrum.values, points, top, decades, longest)
            xs += [view.matrix.layer - 0.5 + _INSET + (1 - 2 * _INSET) * x, _GAP]
            ys += [row + 0.5 - _INSET - (1 - 2 * _INSET) * y, _GAP]
        width = 1.8 if model == "merge" else 1.2
        lines.append({"type": "scatter", "mode": "lines", "x": rounded(np.concatenate(xs)),
                      "y": rounded(np.concatenate(ys)), "hoverinfo": "skip",
                      "line": {"color": f"@{colours[model]}", "width": width}})  # fmt: skip
    layout = grid_layout(family, layers, open_matrix, _HEIGHT)
    label = "Spectra of every matrix, by layer and kind; each cell opens its matrix"
    return Picture({"data": [ground, *lines], "layout": layout}, {}, label, _HEIGHT)


def _sparkline(
    values: np.ndarray, points: int, top: float, decades: float, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """x and y in the unit square: log of the direction, and of the strength in the decades below the top."""
    n = int((values > top * 0.999 / 10**decades).sum())
    if not n:
        return np.empty(0), np.empty(0)
    at = _places(n, points)
    return np.log10(at) / log10(max(longest, 2)), 1 + np.log10(values[at - 1] / top) / decades


@lru_cache(maxsize=256)  # few occur, and to find them takes longest
def _places(n: int, points: int) -> np.ndarray:
    return np.unique(np.geomspace(1, n, min(n, points)).round().astype(int))


def _window(n_layers: int, centre: int) -> range:
    first = min(max(0, centre - VALUES_UP_TO // 2), max(0, n_layers - VALUES_UP_TO))
    return range(first, min(n_layers, first + VALUES_UP_TO))
