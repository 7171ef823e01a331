"""A method's gate, or its densities, as a strip over the layers: one mark a matrix and expert, hollow where the gate
changed it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from merging.look import Look
from merging.plots.picture import SYMBOLS, VALUES_UP_TO, Picture, roles, text

GATE_HEIGHT = 168
_ROOM = 0.7  # of a layer's width that its kinds of matrix share


def gate_strip(look: Look) -> Picture:
    """x the layer, its kinds of matrix side by side in their order; y what the gate sees with its threshold as the
    line, or the density.

    An expert that the gate leaves alone has no marks. customdata is [layer, kind], as in the maps.
    """
    gate, family = look.gate, look.family
    assert gate is not None
    kinds, colours = len(family.kinds), roles(family.experts)
    says = ("passes", "gated") if gate.threshold is not None else ("kept", "")
    size = 8 if family.n_layers <= VALUES_UP_TO else 5
    data: list[dict[str, Any]] = []
    for expert, seen in zip(family.experts, gate.values, strict=True):
        cells = [(layer, kind) for layer in range(family.n_layers) for kind in range(kinds)
                 if np.isfinite(seen[kind, layer])]  # fmt: skip
        if not cells:
            continue
        role = colours[expert]
        below = [gate.threshold is not None and bool(seen[kind, layer] < gate.threshold[kind, layer])
                 for layer, kind in cells]  # fmt: skip
        data.append({
            "type": "scatter", "mode": "markers", "name": text(expert),
            "x": [round(_place(layer, kind, kinds), 3) for layer, kind in cells],
            "y": [round(float(seen[kind, layer]), 3) for layer, kind in cells],
            "customdata": [[layer, family.kinds[kind]] for layer, kind in cells],
            "marker": {"symbol": [f"{SYMBOLS[role]}{'-open' if one else ''}" for one in below], "size": size,
                       "color": f"@{role}", "opacity": 1, "line": {"color": f"@{role}", "width": 1.5}},
            "hovertemplate": [f"<b>layer {layer} · {text(family.kinds[kind])}</b><br>{text(expert)}: %{{y}}, "
                              f"{says[one]}<extra></extra>"
                              for (layer, kind), one in zip(cells, below, strict=True)],
        })  # fmt: skip
    layout = {
        "height": GATE_HEIGHT, "margin": {"l": 46, "r": 4, "t": 4, "b": 24}, "showlegend": False,
        "xaxis": {"range": [-0.5, family.n_layers - 0.5], "dtick": 1 if family.n_layers <= 8 else None, "nticks": 12,
                  "showgrid": False, "zeroline": False},
        "yaxis": {"range": [-0.05, 1.05], "nticks": 5, "zeroline": False},
        "shapes": [] if gate.threshold is None else _lines(gate.threshold),
    }  # fmt: skip
    words = "How dense each matrix stays" if gate.threshold is None else "What the gate sees of each matrix"
    return Picture({"data": data, "layout": layout}, {}, f"{words}, by layer", GATE_HEIGHT)


def _place(layer: int, kind: int, kinds: int) -> float:
    return layer + _ROOM * ((kind + 0.5) / kinds - 0.5)


def _lines(threshold: np.ndarray) -> list[dict[str, Any]]:
    """The threshold of each layer; its mean where it differs between the kinds."""
    means: Sequence[float] = [float(np.nanmean(line)) if np.isfinite(line).any() else np.nan for line in threshold.T]
    return [
        {"type": "line", "x0": layer - 0.5, "x1": layer + 0.5, "y0": mean, "y1": mean,
         "line": {"color": "@ink", "width": 1.5, "dash": "dot"}}
        for layer, mean in enumerate(means) if np.isfinite(mean)
    ]  # fmt: skip
