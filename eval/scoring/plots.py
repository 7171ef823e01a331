"""Scores as pictures: the three bars. Plain plotly dictionaries, as in merging/plots."""

from collections.abc import Mapping
from typing import Any

from eval.scoring.board import HScore, Scores
from eval.scoring.compare import retention
from merging.plots.picture import NAMED, Picture, roles, text

_GROUP = 24  # px for a group's name
_ROW = 23
_GAP = 10
_FOOT = 26
Table = tuple[list[str], list[list[str | int | float]]]


def bars_height(n_models: int) -> int:
    return len(NAMED) * (_GROUP + n_models * _ROW + _GAP) + _FOOT


def bars(scores: Mapping[str, Scores]) -> Picture:
    """One group an H, one row a model in the order merge, experts, base.

    Solid up to the lower bound of the interval, faded to the upper one, a tick at the estimate. The tint spans from the
    base to the best expert.
    """
    order = [*(m for m in ("merge",) if m in scores), *(m for m in scores if m not in ("merge", "base")),
             *(m for m in ("base",) if m in scores)]  # fmt: skip
    experts = [m for m in order if m not in ("merge", "base")]
    colours = roles(experts)
    height = bars_height(len(order))
    data: list[dict[str, Any]] = []
    shapes, notes, short, ticks = [], [], [], {}
    top = 0.0
    for h in NAMED:
        found = {m: getattr(scores[m], h) for m in order}
        best = max((found[m].score for m in experts), default=None)
        first, last = top + _GROUP, top + _GROUP + len(order) * _ROW
        shapes += _tint(h, found.get("base"), best, first, last)
        notes.append(_words(f"<b>{h.capitalize()}</b>", 0, top + _GROUP / 2, "left", f"@{h}", 13.5))
        short.append(notes[-1])
        if (kept := keeps(found, best)) is not None:
            for into, words in ((notes, " of the best expert’s gain"), (short, "")):
                line = f"keeps <b>{round(100 * kept)} %</b>{words}" if kept >= 0 else "below the base"
                into.append(_words(line, 100, top + _GROUP / 2, "right", "@ink2", 12))
        for i, model in enumerate(order):
            y = first + (i + 0.5) * _ROW
            ticks[y] = f"<b>{text(model, 14)}</b>" if model == "merge" else text(model, 14)
            rows, tick, end = _row(model, found[model], y, colours[model])
            data += rows
            shapes.append(tick)
            notes.append(end)
            short.append(end)
        top = last + _GAP
    layout = {
        "height": height,
        "margin": {"l": 14 + 7 * max(len(text(m, 14)) for m in order), "r": 34, "t": 0, "b": _FOOT},
        "barmode": "stack",
        "xaxis": {"range": [0, 100], "tickvals": [0, 25, 50, 75, 100]},
        "yaxis": {"range": [top, 0], "tickvals": list(ticks), "ticktext": list(ticks.values()), "showgrid": False},
        "shapes": shapes,
        "annotations": notes,
    }
    label = "Share of probes passed by the merge, the experts and the base, with 95 % intervals"
    return Picture({"data": data, "layout": layout}, {"annotations": short}, label, height)


def keeps(found: Mapping[str, HScore], best: float | None) -> float | None:
    """Share of the best expert's gain over the base that the merge keeps; None where there is no gain to keep."""
    if best is None or "merge" not in found or "base" not in found:
        return None
    merge, base = found["merge"].score, found["base"].score
    return retention(merge, base, best) if best - base > 0.02 else None


def scores_table(scores: Mapping[str, Scores]) -> Table:
    """One row a model: share passed and its interval for each H, in hundredths."""
    rows: list[list[str | int | float]] = []
    for model, score in scores.items():
        sides = [getattr(score, h) for h in NAMED]
        rows.append([model, *(f"{100 * s.score:.0f} ({100 * s.low:.0f} to {100 * s.high:.0f})" for s in sides),
                     round(100 * score.mean), round(100 * score.min)])  # fmt: skip
    return ["model", *NAMED, "mean", "worst"], rows


def _row(model: str, side: HScore, y: float, colour: str) -> tuple[list[dict], dict, dict]:
    score, low, high = 100 * side.score, 100 * side.low, 100 * side.high
    merge = model == "merge"
    width = 18 if merge else 12
    says = (f"<b>{text(model, 40)}</b>: {score:.0f} of 100<br>95 % interval {low:.0f} to {high:.0f} "
            f"({side.n} probes)<extra></extra>")  # fmt: skip
    parts = ((low, f"@{colour}" if merge else f"@{colour}/80"), (high - low, f"@{colour}/35"))
    data = [
        {"type": "bar", "orientation": "h", "x": [round(part, 2)], "y": [y], "width": width, "hovertemplate": says,
         "name": text(model, 40), "marker": {"color": fill, "line": {"width": 0}}}
        for part, fill in parts
    ]  # fmt: skip
    tick = {"type": "line", "x0": score, "x1": score, "y0": y - width / 2, "y1": y + width / 2, "layer": "above",
            "line": {"color": f"@{colour}", "width": 2}}  # fmt: skip
    words = f"<b>{score:.0f}</b>" if merge else f"{score:.0f}"
    end = _words(words, high, y, "left", "@ink" if merge else "@ink2", 13 if merge else 12)
    return data, tick, end | {"xshift": 4, "bgcolor": "@paper", "borderpad": 1}


def _tint(h: str, base: HScore | None, best: float | None, top: float, foot: float) -> list[dict]:
    if base is None or best is None or best <= base.score:
        return []
    start, end = 100 * base.score, 100 * best
    return [
        {"type": "rect", "x0": start, "x1": end, "y0": top, "y1": foot, "layer": "below", "line": {"width": 0},
         "fillcolor": f"@{h}/9"},
        {"type": "line", "x0": end, "x1": end, "y0": top, "y1": foot, "layer": "below",
         "line": {"color": f"@{h}", "width": 1.2, "dash": "2px,2px"}},
    ]  # fmt: skip


def _words(words: str, x: float, y: float, side: str, colour: str, size: float) -> dict:
    return {"text": words, "x": x, "y": y, "xanchor": side, "yanchor": "middle", "showarrow": False,
            "font": {"color": colour, "size": size}}  # fmt: skip
