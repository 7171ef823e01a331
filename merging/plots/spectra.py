"""One matrix's curves: strength or energy over direction, experts against the merge."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import Any, Literal

import numpy as np

from merging.look import MatrixView, Spectrum, cumulative_energy
from merging.plots.picture import Picture, roles, text

_POINTS = 160  # of a curve; more cannot be told apart
_STACK = 19  # px between stacked labels
Quantity = Literal["strength", "energy"]


def matrix_spectrum(view: MatrixView, quantity: Quantity = "strength", height: int = 268) -> Picture:
    """Each expert solid up to its cut and dotted beyond, the merge in ink; labels stand on the curves."""
    colours = roles([s.model for s in view.spectra[:-1]])
    n = min(view.matrix.shape)
    curves = {s.model: _curve(s, quantity) for s in view.spectra}
    axis = _strength_axis(curves) if quantity == "strength" else _ENERGY_AXIS
    plot = height - 60
    data: list[dict[str, Any]] = []
    for spectrum in view.spectra:
        data += _traces(spectrum, curves[spectrum.model], colours[spectrum.model], quantity)
    cuts = [s for s in view.spectra[:-1] if s.kept is not None and 0 < s.kept < n and len(curves[s.model])]
    together = len(cuts) > 1 and len(cuts) == len(view.spectra) - 1 and len({s.kept for s in cuts}) == 1
    shapes, labels = _cuts(cuts, curves, colours, axis, n, plot, together)
    named = view.spectra if together or len(cuts) < len(view.spectra) - 1 else view.spectra[-1:]
    ends = [(s.model, f"@{colours[s.model]}", curves[s.model]) for s in named]
    if quantity == "strength" and cuts and not together:
        ends.append(("dropped", "@ink3", min((curves[s.model] for s in cuts), key=_last)))
    right = 14 + max(7 * len(text(name, 14)) for name, _, _ in ends)
    xticks = _index_ticks(n, 8)
    layout = {
        "height": height,
        "margin": {"l": 46, "r": right, "t": 16, "b": 44},
        "xaxis": {"range": [1 - n * 0.01, n], "tickvals": xticks, "title": {"text": "direction, strongest first"},
                  "showgrid": False},
        "yaxis": axis,
        "shapes": shapes,
        "annotations": [*labels, *_end_labels(ends, axis, plot)],
    }  # fmt: skip
    where = f"layer {view.matrix.layer}, {view.matrix.kind}"
    what = "Strength" if quantity == "strength" else "Cumulative energy"
    narrow = {"xaxis": {"tickvals": _index_ticks(n, 4)}}
    return Picture({"data": data, "layout": layout}, narrow, f"{what} of each direction in {where}", height)


def _curve(spectrum: Spectrum, quantity: Quantity) -> np.ndarray:
    values = spectrum.values.astype(np.float64)
    if quantity == "energy":
        return 100 * cumulative_energy(values)
    return values[: int((values > 1e-6 * values[0]).sum())] if values.size and values[0] > 0 else values[:0]


def _traces(spectrum: Spectrum, curve: np.ndarray, colour: str, quantity: Quantity) -> list[dict[str, Any]]:
    merge = spectrum.model == "merge"
    cut = len(curve) if merge or spectrum.kept is None else min(spectrum.kept, len(curve))
    says = {"strength": "direction %{x}: %{y:.3~g}", "energy": "first %{x} directions: %{y:.0f} of 100"}[quantity]
    base = {"type": "scatter", "mode": "lines", "name": text(spectrum.model, 40),
            "hovertemplate": f"<b>{text(spectrum.model, 40)}</b>, {says}<extra></extra>"}  # fmt: skip
    parts = [(0, cut, {"color": f"@{colour}", "width": 3 if merge else 2})]
    if cut < len(curve):
        parts.append((max(cut - 1, 0), len(curve), {"color": f"@{colour}", "width": 1, "dash": "1px,3px"}))
    found = []
    for first, last, line in parts:
        if last > first:
            at = sample(last - first) + first
            found.append(base | {"x": (at + 1).tolist(), "y": [float(f"{v:.4g}") for v in curve[at]], "line": line})
    return found


def sample(n: int, points: int = _POINTS) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, points)).round().astype(int))


def _strength_axis(curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """Ends snapped to 1, 2, 5, so that a small move of a slider leaves the axis where it is."""
    filled = [curve for curve in curves.values() if len(curve)]
    high = max((float(c[0]) for c in filled), default=1.0)
    low = max(min((_last(c) for c in filled), default=high / 10), high / 1e3)
    top, bottom = _snap(log10(high) + 0.03, up=True), _snap(log10(low) - 0.12, up=False)
    ticks = [10.0**e for e in range(ceil(bottom - 1e-9), floor(top + 1e-9) + 1)]
    if len(ticks) < 3:
        ticks = [m * 10.0**e for e in range(floor(bottom), ceil(top) + 1) for m in (1, 2, 5)
                 if bottom - 1e-9 <= log10(m) + e <= top + 1e-9]  # fmt: skip
    return {"type": "log", "range": [bottom, top], "tickvals": ticks, "ticktext": [f"{t:.6g}" for t in ticks],
            "title": {"text": "strength"}}  # fmt: skip


_ENERGY_AXIS = {"type": "linear", "range": [0, 102], "tickvals": [0, 25, 50, 75, 100],
                "title": {"text": "energy held, of 100"}}  # fmt: skip


def _last(curve: np.ndarray) -> float:
    """Where a curve ends to the eye: the last tenth of a full spectrum dives to nothing."""
    return float(curve[int(0.9 * (len(curve) - 1))])


def _snap(exponent: float, *, up: bool) -> float:
    whole = floor(exponent)
    steps = [whole + log10(m) for m in (1, 2, 5, 10)]
    if up:
        return next(s for s in steps if s >= exponent - 1e-9)
    return next(s for s in reversed(steps) if s <= exponent + 1e-9)


def _height_of(value: float, axis: dict[str, Any]) -> float:
    """A value in the axis's own coordinate: exponents on a log axis."""
    return log10(value) if axis["type"] == "log" else value


def _value_at(share: float, axis: dict[str, Any]) -> float:
    low, high = axis["range"]
    place = low + share * (high - low)
    return 10**place if axis["type"] == "log" else place


def _cuts(cuts: Sequence[Spectrum], curves: dict, colours: dict, axis: dict, n: int, plot: int,
          together: bool) -> tuple[list, list]:  # fmt: skip
    """A tick on each curve, a dotted drop line, and its label in the empty lower part, stacked by k."""
    shapes, labels = [], []
    low, high = axis["range"]
    ordered = sorted(cuts, key=lambda s: s.kept or 0)
    rows = 1 if together else len(ordered)
    for i, spectrum in enumerate(ordered):
        k, curve = spectrum.kept or 0, curves[spectrum.model]
        colour = f"@{colours[spectrum.model]}"
        value = float(curve[min(k, len(curve)) - 1])
        share = (_height_of(value, axis) - low) / (high - low)
        foot = (10 + _STACK * (rows - 1 - (0 if together else i))) / plot
        ends = [_value_at(share + d, axis) for d in (-9 / plot, 9 / plot)]
        shapes.append({"type": "line", "x0": k, "x1": k, "y0": ends[0], "y1": ends[1],
                       "line": {"color": colour, "width": 2}})  # fmt: skip
        if share > foot:
            line = {"color": "@ink3" if together else colour, "width": 1, "dash": "2px,3px"}
            drop = _value_at(foot - 6 / plot, axis)
            shapes.append({"type": "line", "x0": k, "x1": k, "y0": value, "y1": drop, "line": line})
        if together and i:
            continue
        words = "each keeps <b>{}</b>, drops the rest" if together else text(spectrum.model, 14) + " keeps <b>{}</b>"
        left = k < 0.7 * n
        labels.append({"text": words.replace("{}", str(k)), "x": k, "y": foot, "yref": "paper", "showarrow": False,
                       "xanchor": "left" if left else "right", "xshift": 4 if left else -4, "yanchor": "middle",
                       "bgcolor": "@paper", "borderpad": 1,
                       "font": {"color": "@ink2" if together else colour}})  # fmt: skip
    return shapes, labels


def _end_labels(ends: Sequence[tuple[str, str, np.ndarray]], axis: dict, plot: int) -> list:
    """Names at the right end of the curves, pushed apart where they would touch."""
    low, high = axis["range"]
    places = []
    for name, colour, curve in ends:
        if len(curve):
            share = (_height_of(_last(curve), axis) - low) / (high - low)
            places.append([max(share, 0) * plot, name, colour, len(curve)])
    places.sort(key=lambda place: place[0])
    furthest = max((place[3] for place in places), default=0)
    for shares_end in (True, False):  # a curve that ends earlier has its label to itself
        column = [place for place in places if (place[3] > 0.8 * furthest) == shares_end]
        for below, above in pairwise(column):
            above[0] = max(above[0], below[0] + 15)
        over = max(0.0, column[-1][0] - plot) if column else 0.0
        for place in column:
            place[0] -= over
    return [
        {"text": f"<b>{name}</b>" if name == "merge" else text(name, 14), "x": end, "xanchor": "left", "xshift": 6,
         "y": min(max(place / plot, 0), 1), "yref": "paper", "yanchor": "middle", "showarrow": False,
         "bgcolor": "@paper", "font": {"color": colour}}
        for place, name, colour, end in places
    ]  # fmt: skip


def _index_ticks(n: int, most: int) -> list[int]:
    step = next(s for s in (1 << p for p in range(24)) if n <= s * most)
    return [1, *(i for i in range(step, n + 1, step) if i > 1)]
