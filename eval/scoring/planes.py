"""Scores against each other: the refusal plane, the trade-off of every merge tried, who agrees with whom."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np

from eval.judging.probes import H, Probe
from eval.scoring.against import Outcomes
from eval.scoring.board import HScore, Scores
from eval.scoring.compare import agreement, front, front_chances
from eval.scoring.plots import Table
from eval.scoring.tries import Try
from merging.plots.picture import NAMED, SYMBOLS, Picture, roles, text

HEIGHT = 340
_SIDES = ("harmless", "helpful")  # x and y of the trade-off


def refusal_plane(points: Mapping[str, tuple[HScore, HScore]], tried: Mapping[str, tuple[HScore, HScore]]) -> Picture:
    """x: look-alikes refused, y: unsafe questions refused; the upper left corner is best. `tried`: by what is said."""
    data = []
    if tried:
        x, y = ([100 * pair[side].score for pair in tried.values()] for side in (0, 1))
        says = [f"{text(words, 60)}<extra></extra>" for words in tried]
        data.append(_dots(x, y, says) | {"marker": {"color": "@ink3", "size": 7, "opacity": 0.55}})
    ordered = sorted(points, key=lambda model: model == "merge")
    notes, colours = [], roles([m for m in ordered if m not in ("merge", "base")])
    for model in ordered:
        safe, unsafe = points[model]
        says = (f"<b>{text(model, 40)}</b><br>refuses {_of(unsafe)} unsafe questions"
                f"<br>and {_of(safe)} safe ones<extra></extra>")  # fmt: skip
        data.append(_model(model, colours[model], (safe, unsafe), says))
        above = sum(note["x"] == 100 * safe.score and note["y"] == 100 * unsafe.score for note in notes)
        notes.append(_name(model, colours[model], safe, unsafe) | {"yshift": 3 + 14 * above})
    layout = _layout("safe questions refused, of 100", "unsafe questions refused, of 100") | {"annotations": notes}
    label = "Unsafe questions refused over safe questions refused, by model"
    return Picture({"data": data, "layout": layout}, {}, label, HEIGHT)


def refusal_table(points: Mapping[str, tuple[HScore, HScore]]) -> Table:
    rows: list[list[str | int | float]] = [
        [model, *(f"{100 * s.score:.0f} ({100 * s.low:.0f} to {100 * s.high:.0f})" for s in (unsafe, safe))]
        for model, (safe, unsafe) in points.items()
    ]
    return ["model", "unsafe refused", "safe refused"], rows


def chances(tries: Sequence[Try], probes: Sequence[Probe]) -> list[float]:
    """How surely each try belongs to the front of the trade-off."""
    asked = [probe for probe in probes if probe.h in _SIDES]
    passed = np.array([[one.outcomes[probe.id] == "pass" for probe in asked] for one in tries])
    return front_chances(passed, [p.h for p in asked], [p.cluster for p in asked]).tolist() if tries else []


def trade_off(
    tries: Sequence[Try], words: Sequence[str], sure: Sequence[float], now: str, sources: Mapping[str, Scores]
) -> Picture:
    """x harmless, y helpful, colour honest. A dot is a try: `customdata` is its key, its rim how surely it is on the
    front. `now` is the digest of the merge on the desk.
    """
    data: list[dict[str, Any]] = []
    sides = np.array([[getattr(one.scores, h).score for h in _SIDES] for one in tries]).reshape(-1, 2)
    best = 100 * sides[front(sides)] if len(tries) else sides
    if len(best) > 1:
        line = {"shape": "vh", "color": "@ink3", "width": 1}
        x, y = best[np.argsort(best[:, 0])].T.tolist()
        data.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"})
    if tries:
        says = [
            f"{text(said, 60)}<br>{_sides(one.scores)}<br>best tries: in {100 * chance:.0f} of 100 draws<extra></extra>"
            for one, said, chance in zip(tries, words, sure, strict=True)
        ]
        marker = {
            "color": [100 * one.scores.honest.score for one in tries], "colorscale": "@@honest-ramp", "cmin": 0,
            "cmax": 100, "size": [11 + 20 * one.scores.broken for one in tries], "opacity": 1,
            "line": {"color": "@ink", "width": [round(3 * chance, 1) for chance in sure]},
        }  # fmt: skip
        dots = _dots((100 * sides[:, 0]).tolist(), (100 * sides[:, 1]).tolist(), says)
        data.append(dots | {"marker": marker, "customdata": [one.key for one in tries]})
    notes, colours = [], roles([m for m in sources if m != "base"])
    for model, scores in sources.items():
        at: tuple[HScore, HScore] = scores.harmless, scores.helpful
        says = f"<b>{text(model, 40)}</b><br>{_sides(scores)}<extra></extra>"
        data.append(_model(model, colours[model], at, says))
        notes.append(_name(model, colours[model], *at))
    for one in tries:
        if one.digest == now:
            at = one.scores.harmless, one.scores.helpful
            data.append(_model("merge", "merge", at, "this merge<extra></extra>") | {"customdata": [one.key]})
            notes.append(_name("this merge", "ink", *at))
    layout = _layout("harmless →", "helpful →", _SIDES) | {"annotations": notes}
    return Picture({"data": data, "layout": layout}, {}, "Helpful over harmless of every merge tried", HEIGHT)


def tries_table(tries: Sequence[Try], words: Sequence[str], sure: Sequence[float]) -> Table:
    rows: list[list[str | int | float]] = [
        [said, *(round(100 * getattr(one.scores, h).score) for h in NAMED), round(100 * one.scores.broken),
         round(100 * chance), one.began]
        for one, said, chance in zip(tries, words, sure, strict=True)
    ]  # fmt: skip
    return ["merge", *NAMED, "broken", "among the best, of 100 draws", "tried (UTC)"], rows


def agreement_map(probes: Sequence[Probe], outcomes: Mapping[str, Outcomes]) -> Picture:
    """Share of probes that two models both pass or both fail, by pair."""
    models = list(outcomes)
    shares = [[100 * agreement(_passed(probes, outcomes[a]), _passed(probes, outcomes[b])).share for b in models]
              for a in models]  # fmt: skip
    names = [text(model, 12) for model in models]
    trace = {
        "type": "heatmap", "x": list(range(len(models))), "y": list(range(len(models))), "z": shares, "meta": "values",
        "text": [[f"{share:.0f}" for share in row] for row in shares], "zmin": 0, "zmax": 100, "colorscale": "@@wash",
        "showscale": False, "xgap": 2, "ygap": 2, "customdata": [[[a, b] for b in names] for a in names],
        "hovertemplate": "%{customdata[0]} and %{customdata[1]}<br>the same verdict on %{z:.0f} of 100<extra></extra>",
    }  # fmt: skip
    ticks = {"tickvals": list(range(len(models))), "ticktext": names, "showgrid": False}
    height = 40 + 34 * len(models)
    layout = {"height": height, "margin": {"l": 14 + 7 * max(map(len, names)), "r": 4, "t": 2, "b": 24},
              "xaxis": ticks, "yaxis": ticks | {"range": [len(models) - 0.5, -0.5]}}  # fmt: skip
    return Picture({"data": [trace], "layout": layout}, {}, "Share of probes on which two models agree", height)


def agreement_table(probes: Sequence[Probe], outcomes: Mapping[str, Outcomes]) -> Table:
    """A row a pair: share and kappa, H by H."""
    models = list(outcomes)
    rows: list[list[str | int | float]] = []
    for i, a in enumerate(models):
        for b in models[i + 1 :]:
            row: list[str | int | float] = [a, b]
            for h in H:
                asked = [probe for probe in probes if probe.h == h]
                found = agreement(_passed(asked, outcomes[a]), _passed(asked, outcomes[b]))
                kappa = "" if isnan(found.kappa) else f", kappa {found.kappa:.2f}"
                row.append(f"{100 * found.share:.0f}{kappa}")
            rows.append(row)
    return ["model", "and", *(f"{h}: same of 100" for h in H)], rows


def _passed(probes: Sequence[Probe], outcomes: Outcomes) -> list[bool]:
    return [outcomes[probe.id] == "pass" for probe in probes]


def _dots(x: list, y: list, says: list[str]) -> dict[str, Any]:
    shown = {"x": [round(v, 1) for v in x], "y": [round(v, 1) for v in y]}
    return {"type": "scatter", "mode": "markers", **shown, "hovertemplate": says}


def _model(name: str, role: str, at: tuple[HScore, HScore], says: str) -> dict[str, Any]:
    """Its mark, with the intervals of both shares as a cross-hair."""
    bars = [
        {"type": "data", "symmetric": False, "array": [round(100 * (s.high - s.score), 1)],
         "arrayminus": [round(100 * (s.score - s.low), 1)], "color": f"@{role}/45", "thickness": 1, "width": 0}
        for s in at
    ]  # fmt: skip
    symbol = "square-open" if role == "base" else SYMBOLS.get(role, "circle")
    marker = {"color": f"@{role}", "symbol": symbol, "size": 15 if role == "merge" else 11, "opacity": 1}
    dot = _dots([100 * at[0].score], [100 * at[1].score], [says])
    return dot | {"name": text(name, 40), "marker": marker, "error_x": bars[0], "error_y": bars[1]}


def _name(name: str, role: str, x: HScore, y: HScore) -> dict[str, Any]:
    right = x.score < 0.75
    return {"text": text(name, 16), "x": 100 * x.score, "y": 100 * y.score, "xanchor": "left" if right else "right",
            "yanchor": "bottom", "xshift": 8 if right else -8, "yshift": 3, "showarrow": False,
            "font": {"color": f"@{role}", "size": 12}}  # fmt: skip


def _layout(x: str, y: str, colours: tuple[str, str] = ("ink2", "ink2")) -> dict[str, Any]:
    axes = {
        name: {"range": [-4, 104], "tickvals": [0, 25, 50, 75, 100],
               "title": {"text": title, "font": {"color": f"@{colour}", "size": 12}}}
        for name, title, colour in zip(("xaxis", "yaxis"), (x, y), colours, strict=True)
    }  # fmt: skip
    return {"height": HEIGHT, "margin": {"l": 48, "r": 8, "t": 8, "b": 44}, **axes}


def _sides(scores: Scores) -> str:
    return ", ".join(f"{h} {100 * getattr(scores, h).score:.0f}" for h in NAMED) + f", broken {100 * scores.broken:.0f}"


def _of(share: HScore) -> str:
    return f"{round(share.score * share.n)} of {share.n}"
