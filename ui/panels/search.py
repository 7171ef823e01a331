"""Search: the machine turns the knobs; every try is a dot that leads back to it."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from eval.judging.probes import H
from eval.scoring.board import HScore, Scores
from eval.searching.aims import AIMS
from eval.searching.plots import HEIGHT, at, counted, pareto, triangle, tries_table
from eval.searching.samplers import SAMPLERS
from ui.figure import Figure
from ui.found import Found
from ui.marks import label
from ui.pieces import Output, static, table_value
from ui.score_findings import search_finding

MOST_TRIES = 500
_AIMS = {"both": "Both", "mean": "Mean", "worst": "Worst", "harmless": "Harmless"}
_TITLES = {"tpe": "TPE", "random": "Random", "cmaes": "CMA-ES", "blocks": "Blocks", "halving": "Halving",
           "simplex": "Simplex", "rolls": "Rolls"}  # fmt: skip


@dataclass(frozen=True)
class SearchPanel:
    finding: gr.HTML
    sampler: gr.Dropdown
    aim: gr.Dropdown
    trials: gr.Number
    minutes: gr.Number
    start: gr.Button
    full: gr.Column
    title: gr.HTML
    picture: Figure
    load: gr.Dropdown
    finalists: gr.HTML
    table: gr.Dataframe

    @property
    def outputs(self) -> set[Output]:
        return {self.finding, self.start, self.full, self.title, self.picture, self.load, self.finalists, self.table}  # pyright: ignore


def build() -> SearchPanel:
    finding = static(search_finding(None), elem_classes=["find"])
    with gr.Row(elem_classes=["slim"]):
        sampler = gr.Dropdown(
            [(f"{_TITLES[name]}: {words}", name) for name, words in SAMPLERS.items()], value="tpe", label="Sampler",
            filterable=False, interactive=True, elem_id="sampler",
        )  # fmt: skip
        aim = gr.Dropdown(
            [(f"{_AIMS[name]}: {words}", name) for name, words in AIMS.items()], value="both", label="Aim",
            filterable=False, interactive=True, elem_id="aim",
        )  # fmt: skip
    with gr.Row(elem_classes=["slim"]):
        trials = gr.Number(24, label="Tries", precision=0, min_width=80, elem_id="tries")
        minutes = gr.Number(0, label="Minutes (0: any)", min_width=120, elem_id="minutes")
        start = gr.Button("Search", variant="primary", min_width=90, elem_id="search")
    with gr.Column(visible=False) as full, gr.Row(elem_classes=["duo"]):
        with gr.Column(scale=6, min_width=0):
            title = static(elem_classes=["pic"])
            picture = Figure(height=HEIGHT, elem_id="searched")
            with gr.Accordion("Read the tries as a table", open=False, elem_classes=["twin"]):
                table = gr.Dataframe(interactive=False, show_label=False, wrap=True)
        with gr.Column(scale=6, min_width=0):
            load = gr.Dropdown([], value=None, label="Load a try", info="Its settings come onto the desk.",
                               interactive=True, filterable=False, elem_id="load-try")  # fmt: skip
            finalists = static(elem_classes=["sheet"], elem_id="finalists")
    return SearchPanel(finding, sampler, aim, trials, minutes, start, full, title, picture, load, finalists, table)


def draw(panel: SearchPanel, found: Found | None, running: bool) -> dict[Output, Any]:
    tries = found.tries if found else []
    updates: dict[Any, Any] = {
        panel.finding: search_finding(found),
        panel.start: gr.update(interactive=not running),
        panel.full: gr.update(visible=bool(tries)),
    }
    if found is None or not tries:
        return updates
    in_triangle = found.sampler == "simplex" and len(found.experts) == 3
    if in_triangle:
        shares = {one.number: [float(share) for share in one.point.values()] for one in found.tried}
        picture = triangle(tries, shares, found.experts, found.aim)
    else:
        picture = pareto(tries, found.rungs[:-1], found.best, found.aim)
    said = f"Shares of the experts <small>{counted(found.aim)}" if in_triangle else "Tries <small>large: more probes"
    names = ("others", "harmless") if found.aim == "harmless" else ("mean", "worst")
    places = {one.number: at(one, found.aim) for one in tries}
    ordered = sorted(places, key=lambda n: (n != found.best, -sum(places[n])))
    choices = [(f"{n}: {names[0]} {places[n][0]:.0f}, {names[1]} {places[n][1]:.0f}", n) for n in ordered]
    return updates | {
        panel.title: f"<h3>{said} · click a dot to load it</small></h3>",
        panel.picture: picture,
        panel.load: gr.update(choices=choices, value=None),
        panel.finalists: finalists_html(found),
        panel.table: table_value(tries_table(tries)),
    }


def clicked(data: Any) -> int | None:
    """The number of a clicked dot; the browser's word is not trusted."""
    number = data.get("customdata") if isinstance(data, dict) else None
    return number if isinstance(number, int) else None


def finalists_html(found: Found) -> str:
    """Scores on unseen probes with intervals, beside what the search saw; the winner first."""
    if not found.finalists:
        return ""
    head = "".join(f'<th scope="col">{label(h, h)}</th>' for h in H)
    rows = ""
    for one in found.finalists:
        name = "the recipe it began with" if one.number == 0 else f"try {one.number}"
        rows += f'<tr><th scope="row"><b>{name}</b>, unseen probes</th>{_cells(one.unseen)}</tr>'
        rows += f'<tr><th scope="row">as the search saw it</th>{_cells(one.seen)}</tr>'
        if gap := one.against:
            told = "" if gap.low > 0 or gap.high < 0 else ": cannot tell"
            said = f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}){told}"
            on = "harmless" if found.aim == "harmless" else "mean"
            rows += f'<tr><th scope="row">{on} against the recipe it began with</th><td colspan="4">{said}</td></tr>'
    luck = f'<p class="help">{escape(found.done.words())}</p>' if found.done else ""
    return (
        f'<h3 class="pic">Finalists <small>95 % intervals</small></h3><table><thead><tr><td></td>{head}'
        f'<th scope="col">mean</th></tr></thead><tbody>{rows}</tbody></table>{luck}'
    )


def _cells(scores: Scores) -> str:
    sides: list[HScore] = [getattr(scores, h) for h in H]
    each = "".join(f"<td>{100 * s.score:.0f} ({100 * s.low:.0f} to {100 * s.high:.0f})</td>" for s in sides)
    return f"{each}<td>{100 * scores.mean:.1f}</td>"
