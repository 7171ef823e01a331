"""What all pictures share: their record, the models' colours, the grid that gives every matrix one place.

A figure is a plain plotly dictionary; no plotly is needed to write one. Colours are token names that the page resolves:
"@helpful", "@ink/40" (per cent of opacity), "@@conflict" (a whole scale). So dark mode costs nothing here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from merging.look import Family, Matrix

NAMED = ("helpful", "honest", "harmless")
COLOURS = (*NAMED, "teal", "clay", "olive")
SYMBOLS = {"base": "square", "helpful": "triangle-up", "honest": "square", "harmless": "diamond",
           "teal": "triangle-down", "clay": "pentagon", "olive": "cross"}  # fmt: skip
VALUES_UP_TO = 12  # layers; deeper models have no numbers in their cells


@dataclass(frozen=True)
class Picture:
    """`narrow` is laid over the figure's layout where the picture is less than 460 px wide."""

    figure: dict[str, Any]
    narrow: dict[str, Any]
    label: str
    height: int


def awaited(height: int) -> Picture:
    """In the place of a picture of a family that is not read yet."""
    bare = {"visible": False, "range": [0, 1]}
    note = {"text": "follows when it is read", "x": 0.5, "y": 0.5, "showarrow": False, "font": {"color": "@ink3"}}
    layout = {"height": height, "margin": {"l": 4, "r": 4, "t": 4, "b": 4}, "xaxis": bare, "yaxis": bare,
              "annotations": [note]}  # fmt: skip
    return Picture({"data": [], "layout": layout}, {}, "Follows when it is read", height)


def roles(experts: Sequence[str]) -> dict[str, str]:
    """Model name -> colour token: an expert named after an H takes its colour, the others the free ones in order."""
    taken: dict[str, str] = {}
    for name in experts:
        h = next((h for h in NAMED if h in name.lower()), None)
        if h and h not in taken.values():
            taken[name] = h
    free = [colour for colour in COLOURS if colour not in taken.values()]
    for name in experts:
        if name not in taken:
            taken[name] = free.pop(0) if free else COLOURS[-1]
    return {"base": "base", **{name: taken[name] for name in experts}, "merge": "merge"}


def text(name: str, limit: int = 24) -> str:
    """A model's name as plotly text: its markup shown as written, its middle left out when long."""
    short = name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2 - 1) :]}"
    return escape(short, quote=False)


def rounded(values: np.ndarray, digits: int = 3) -> list:
    """Nested lists for JSON, NaN as null."""
    if values.ndim > 1:
        return [rounded(row, digits) for row in values]
    return [None if v != v else v for v in np.round(values.astype(np.float64), digits).tolist()]


def grid_layout(family: Family, layers: Sequence[int], open_matrix: Matrix | None, height: int) -> dict[str, Any]:
    """Axes with layers left to right and kinds top to bottom, and the ink frame of the open matrix."""
    n, m = len(layers), len(family.kinds)
    step = 1 if n <= 8 else next(s for s in (2, 4, 8, 16, 32, 1024) if n <= (6 if s == 2 else VALUES_UP_TO) * s)
    ticks = [layer for layer in layers if (layer - layers[0]) % step == 0]
    every = -(-m // 14)
    kinds = [text(kind, 16) for kind in family.kinds]
    edge = 0.008  # the frame of an outer cell needs room beside it
    return {
        "height": height,
        "margin": {"l": max(46, 12 + 7 * max(map(len, kinds), default=0)), "r": 4, "t": 2, "b": 24},
        "xaxis": {
            "range": [layers[0] - 0.5 - edge * n, layers[-1] + 0.5 + edge * n],
            "tickvals": ticks,
            "ticktext": [f"layer {t}" if i == 0 else str(t) for i, t in enumerate(ticks)],
            "showgrid": False,
        },
        "yaxis": {
            "range": [m - 0.5 + edge * m, -0.5 - edge * m],
            "tickvals": list(range(0, m, every)),
            "ticktext": kinds[::every],
            "showgrid": False,
        },
        "shapes": _frame(family, open_matrix) if open_matrix and open_matrix.layer in layers else [],
    }


def grid_trace(family: Family, layers: Sequence[int], z: list, extra: Sequence | None = None) -> dict[str, Any]:
    """A heat map whose every cell says on a click which matrix it is: customdata is [layer, kind, extra]."""
    gap = 2 if len(layers) <= VALUES_UP_TO else 1
    return {
        "type": "heatmap",
        "x": list(layers),
        "y": list(range(len(family.kinds))),
        "z": z,
        "customdata": [
            [[layer, escape(kind, quote=False), *((extra[i][j],) if extra else ())] for j, layer in enumerate(layers)]
            for i, kind in enumerate(family.kinds)
        ],
        "xgap": gap,
        "ygap": gap,
        "showscale": False,
        "hoverongaps": False,
    }


def _frame(family: Family, matrix: Matrix) -> list[dict[str, Any]]:
    """Ink over a wider paper line: it shows on a cell full of ink too."""
    row = family.kinds.index(matrix.kind)
    box = {"type": "rect", "x0": matrix.layer - 0.5, "x1": matrix.layer + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    lines = ({"color": "@paper", "width": 5.5}, {"color": "@ink", "width": 2.5})
    return [box | {"layer": "above", "line": line} for line in lines]
