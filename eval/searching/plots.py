"""Tries of a search as pictures: mean over worst side, and the triangle of the shares of three experts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from eval.scoring.board import Scores
from eval.scoring.compare import front
from eval.scoring.plots import Table
from eval.searching.aims import BROKEN, Aim, surely_broken, worth
from eval.searching.events import Tried
from merging.plots.picture import NAMED, Picture, roles, text

HEIGHT = 380
_HIGH = sqrt(3) / 2  # of a triangle with sides of 1
_AXES: Mapping[Aim, tuple[str, str]] = {"harmless": ("mean of the others", "harmless")}
_USUAL = ("mean of the three", "worst of the three")


@dataclass(frozen=True)
class Shown:
    """A try by its scores on the highest rung below the unseen probes that it reached."""

    number: int
    rung: str
    words: str
    scores: Scores


def shown(tried: Sequence[Tried], last: str) -> list[Shown]:
    """By number. `last`: the rung of unseen probes, which no choice may look at."""
    found: dict[int, Shown] = {}
    for one in tried:
        if one.scores is not None and one.rung != last:
            found[one.number] = Shown(one.number, one.rung, words(one), one.scores)
    return [found[number] for number in sorted(found)]


def words(one: Tried) -> str:
    """A try's point in a few words."""
    said = (f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in one.point.items())
    return ", ".join(said)


def axes(aim: Aim) -> tuple[str, str]:
    """What a try's place says."""
    return _AXES.get(aim, _USUAL)


def at(one: Shown, aim: Aim) -> tuple[float, float]:
    """Where a try stands, in hundredths: mean and worst side, or the mean of the others and harmless."""
    scores = one.scores
    x, y = (scores.mean, scores.min)
    if aim == "harmless":
        x, y = (scores.helpful.score + scores.honest.score) / 2, scores.harmless.score
    return round(100 * x, 1), round(100 * y, 1)


def pareto(tries: Sequence[Shown], rungs: Sequence[str], best: int | None, aim: Aim = "both") -> Picture:
    """A try by what is aimed at; its dot's `customdata` is its number. The line joins the front of those on the highest
    rung that has two; hollow dots give too many broken answers.
    """
    data: list[dict[str, Any]] = []
    top = next((rung for rung in reversed(rungs) if sum(one.rung == rung for one in tries) > 1), rungs[0])
    level = [one for one in tries if one.rung == top and surely_broken(one.scores) <= BROKEN]
    if len(level) > 1:
        places = np.array([at(one, aim) for one in level])
        x, y = (on := places[front(places)])[np.argsort(on[:, 0])].T.tolist()
        line = {"shape": "vh", "color": "@ink3", "width": 1}
        data.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"})
    for rung in rungs:
        those = [one for one in tries if one.rung == rung]
        if those:
            data.append(_dots(those, rung == rungs[0], aim))
    notes = [
        _note(word, *at(one, aim), "@merge" if one.number == best else "@ink2")
        for one in tries
        for word in [_name(one.number, best)]
        if word
    ]
    each = [value for one in tries for value in at(one, aim)]
    low, high = (max(0.0, min(each) - 5), min(100.0, max(each) + 5)) if each else (0.0, 100.0)
    titled = {
        key: {"range": [low, high], "nticks": 6, "title": {"text": f"{title} →", "font": {"size": 12}}}
        for key, title in zip(("xaxis", "yaxis"), axes(aim), strict=True)
    }
    layout = {"height": HEIGHT, "margin": {"l": 48, "r": 8, "t": 8, "b": 44}, "annotations": notes, **titled}
    across, up = axes(aim)
    return Picture({"data": data, "layout": layout}, {}, f"Every try of the search: {up} over {across}", HEIGHT)


def triangle(
    tries: Sequence[Shown], shares: Mapping[int, Sequence[float]], experts: Sequence[str], aim: Aim = "both"
) -> Picture:
    """A dot a try at the shares of three experts (a corner is one expert alone), coloured by what counts first."""
    tries = [one for one in tries if sum(shares[one.number]) > 0]
    places = [corner(shares[one.number]) for one in tries]
    means = [100 * worth(aim, one.scores)[0] for one in tries]
    edge = {"type": "scatter", "mode": "lines", "x": [0, 1, 0.5, 0], "y": [0, 0, round(_HIGH, 4), 0],
            "line": {"color": "@line", "width": 1}, "hoverinfo": "skip"}  # fmt: skip
    dots = {
        "type": "scatter", "mode": "markers+text", "x": [x for x, _ in places], "y": [y for _, y in places],
        "text": [f"{mean:.0f}" for mean in means], "textposition": "top center", "textfont": {"size": 11},
        "customdata": [one.number for one in tries],
        "hovertemplate": [f"<b>try {one.number}</b><br>{text(one.words, 80)}<br>{_sides(one)}<extra></extra>"
                          for one in tries],
        "marker": {"size": 13, "color": means, "colorscale": "@@wash", "opacity": 1,
                   "line": {"color": "@ink", "width": 1}},
    }  # fmt: skip
    colours = roles(experts)
    corners = ((0.5, _HIGH, "bottom", 12), (0.0, 0.0, "top", -12), (1.0, 0.0, "top", -12))
    notes = [
        {"text": f"<b>{text(name, 16)}</b>", "x": x, "y": y, "yanchor": side, "yshift": shift, "showarrow": False,
         "font": {"color": f"@{colours[name]}", "size": 13}}
        for name, (x, y, side, shift) in zip(experts, corners, strict=True)
    ]  # fmt: skip
    hidden = {"visible": False, "showgrid": False}
    layout = {"height": HEIGHT, "margin": {"l": 8, "r": 8, "t": 28, "b": 28}, "annotations": notes,
              "xaxis": hidden | {"range": [-0.12, 1.12]},
              "yaxis": hidden | {"range": [-0.12, 1.0], "scaleanchor": "x"}}  # fmt: skip
    label = f"{counted(aim).capitalize()} by the shares of the three experts"
    return Picture({"data": [edge, dots], "layout": layout}, {}, label, HEIGHT)


def counted(aim: Aim) -> str:
    """What counts first, in words."""
    return {"worst": _USUAL[1], "harmless": "harmless"}.get(aim, _USUAL[0])


def corner(weights: Sequence[float]) -> tuple[float, float]:
    """Where three weights lie in the triangle: the first expert on top, the second left, the third right."""
    first, _, third = (weight / sum(weights) for weight in weights)
    return round(third + first / 2, 4), round(first * _HIGH, 4)


def tries_table(tries: Sequence[Shown]) -> Table:
    rows: list[list[str | int | float]] = [
        [one.number, one.rung, *(round(100 * getattr(one.scores, h).score) for h in NAMED),
         round(100 * one.scores.mean, 1), round(100 * one.scores.min), round(100 * one.scores.broken, 1), one.words]
        for one in tries
    ]  # fmt: skip
    return ["try", "probes", *NAMED, "mean", "worst", "broken", "settings"], rows


def _dots(tries: Sequence[Shown], first: bool, aim: Aim) -> dict[str, Any]:
    colour = "@ink3" if first else "@merge"
    x, y = zip(*(at(one, aim) for one in tries), strict=True)
    return {
        "type": "scatter", "mode": "markers", "x": list(x), "y": list(y),
        "customdata": [one.number for one in tries],
        "marker": {"color": colour, "size": 9 if first else 12, "opacity": 1,
                   "symbol": ["circle-open" if surely_broken(one.scores) > BROKEN else "circle" for one in tries]},
        "hovertemplate": [f"<b>try {one.number}</b>, probes {one.rung}<br>{_sides(one)}<br>{text(one.words, 80)}"
                          "<extra></extra>" for one in tries],
    }  # fmt: skip


def _name(number: int, best: int | None) -> str:
    named = [word for word, of in (("start", 0), ("best", best)) if of == number]
    return " = ".join(named)


def _note(word: str, x: float, y: float, colour: str) -> dict[str, Any]:
    return {"text": f"<b>{word}</b>", "x": x, "y": y, "xanchor": "left", "xshift": 8, "yshift": 8, "showarrow": False,
            "font": {"color": colour, "size": 12}}  # fmt: skip


def _sides(one: Shown) -> str:
    sides = ", ".join(f"{h} {100 * getattr(one.scores, h).score:.0f}" for h in NAMED)
    return f"{sides}, broken {100 * one.scores.broken:.0f}"
