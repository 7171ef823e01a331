"""Board: what the merge passes and fails, against the base and each expert. A score belongs to one digest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from eval.judging.probes import H, Probe
from eval.scoring.against import Outcomes, against, less_safe, points, refusals, smallest
from eval.scoring.planes import HEIGHT, agreement_map, agreement_table, refusal_plane, refusal_table
from eval.scoring.plots import bars, bars_height, keeps, scores_table
from eval.scoring.why import Without
from merging.plots import roles
from merging.plots.scale import hundredths
from ui.figure import Figure
from ui.marks import label, mark
from ui.panels import apart, health, tried, votes
from ui.pieces import Output, static, table_value
from ui.score_findings import board_finding
from ui.scores import TOWN, Exams, Lost, Scoreboard, lost
from ui.session import MAX_EXPERTS

_MOST_LOST = 10
_CLICKS = """element.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-why]");
  if (hit) trigger("select", { ...hit.dataset });
});"""


@dataclass(frozen=True)
class BoardPanel:
    finding: gr.HTML
    empty: gr.Column
    words: gr.HTML
    score: gr.Button
    health: health.HealthPanel
    full: gr.Column
    more: gr.Button
    bars: Figure
    against: gr.HTML
    table: gr.Dataframe
    refusals: Figure
    refusal_table: gr.Dataframe
    agreement: Figure
    agreement_table: gr.Dataframe
    lost: gr.HTML
    why: gr.HTML
    apart: apart.ApartPanel
    tried: tried.TriedPanel
    votes: votes.VotesPanel

    @property
    def outputs(self) -> set[Output]:
        return {self.finding, self.empty, self.words, self.score, self.full, self.more, self.bars, self.against,  # pyright: ignore
                self.table, self.refusals, self.refusal_table, self.agreement, self.agreement_table, self.lost,
                self.why, *self.apart.outputs, *self.health.outputs, *self.tried.outputs}  # fmt: skip


def build() -> BoardPanel:
    finding = static(board_finding({}), elem_classes=["find"])
    with gr.Column(elem_classes=["empty"]) as empty:
        words = static(_empty_html(TOWN))
        score = gr.Button("Score this merge", variant="primary", elem_id="score")
    health_ = health.build()
    with gr.Column(visible=False, elem_id="scored") as full:
        with gr.Row(elem_classes=["duo"]):
            with gr.Column(scale=6, min_width=0):
                static(
                    "<h3>Share of probes passed <small>faded: 95 % interval · tint: base to best expert</small></h3>",
                    elem_classes=["pic"],
                )
                picture = Figure(height=bars_height(MAX_EXPERTS - 1))
                table = _twin("Read the scores as a table")
                more = gr.Button("Ask all probes", variant="secondary", elem_id="score-all")
            with gr.Column(scale=6, min_width=0):
                against_ = static(elem_classes=["sheet", "against"])
        with gr.Row(elem_classes=["duo"]):
            with gr.Column(scale=6, min_width=0):
                static(
                    "<h3>Refusals <small>best: upper left · crosses: 95 % intervals</small></h3>", elem_classes=["pic"]
                )
                plane = Figure(height=HEIGHT)
                plane_table = _twin("Read the refusals as a table")
            with gr.Column(scale=6, min_width=0):
                static("<h3>Who agrees with whom <small>of 100 probes, both pass or both fail</small></h3>",
                       elem_classes=["pic"])  # fmt: skip
                agree = Figure(height=210)
                agree_table = _twin("Read the agreement as a table, H by H")
        lost_ = gr.HTML(apply_default_css=False, js_on_load=_CLICKS, elem_classes=["lost"])
        why = static(elem_id="why", elem_classes=["sheet"])
        apart_ = apart.build()
    return BoardPanel(finding, empty, words, score, health_, full, more, picture, against_, table, plane, plane_table,
                      agree, agree_table, lost_, why, apart_, tried.build(), votes.build())  # fmt: skip


def _empty_html(exams: Exams) -> str:
    return (
        "<p>No score belongs to these settings yet.</p>"
        f'<p class="help">Scoring asks the merge, the base and each expert {len(exams.first.asked.probes)} '
        f"{exams.name} questions; {exams.effort}. Sources are asked once.</p>"
    )


def _twin(title: str) -> gr.Dataframe:
    with gr.Accordion(title, open=False, elem_classes=["twin"]):
        return gr.Dataframe(interactive=False, show_label=False, wrap=True)


def draw(
    panel: BoardPanel, exams: Exams, board: Scoreboard | None, others: Mapping[str, Outcomes]
) -> dict[Output, Any]:
    """None: nothing has been scored at these settings. `others`: of merges asked the same probes, by name."""
    shown = board is not None and "merge" in board.scores
    updates: dict[Any, Any] = {
        panel.finding: board_finding(board.scores if board else {}, exams.name),
        panel.words: _empty_html(exams),
        panel.empty: gr.update(visible=not shown),
        panel.full: gr.update(visible=shown),
    }
    if board is not None and shown:
        probes, outcomes = board.exam.asked.probes, board.outcomes
        found, beside = (
            {name: pair for name, each in group.items() if (pair := refusals(probes, each))}
            for group in (outcomes, others)
        )
        updates |= {
            panel.bars: bars(board.scores),
            panel.against: against_html(board, probes),
            panel.table: table_value(scores_table(board.scores)),
            panel.refusals: refusal_plane(found, beside),
            panel.refusal_table: table_value(refusal_table(found)),
            panel.agreement: agreement_map(probes, outcomes),
            panel.agreement_table: table_value(agreement_table(probes, outcomes)),
            panel.why: "",
            panel.lost: lost_html(lost(board), len(board.answers["merge"]), tuple(board.scores)),
            panel.more: gr.update(
                visible=board.exam == exams.first, value=f"Ask all {len(exams.full.asked.probes)} probes"
            ),
            **apart.draw(panel.apart, exams, board),
        }
    return updates


def against_html(board: Scoreboard, probes: Sequence[Probe]) -> str:
    """Alarms, then a table: the merge minus each source, what it keeps of the best expert, what could show at all."""
    colours = roles([name for name in board.scores if name not in ("merge", "base")])
    broken = board.scores["merge"].broken
    many = hundredths(broken) if broken >= 0.005 else "Less than 1"
    alarms = [f"{many} of 100 answers are broken."] if broken > 0 else []
    safety = less_safe(probes, board.outcomes)
    alarms += [safety.words()] if safety and safety.sure else []
    found = against(probes, board.outcomes)
    rows = [
        (f"minus {label(source, colours[source])}", [one.words() for one in found if one.source == source])
        for source in board.outcomes
        if source != "merge"
    ]
    rows.append(("keeps of the best expert’s gain", [_kept(board, h) for h in H]))
    rows.append(("smallest difference likely to show", [_least(probes, board.outcomes, h) for h in H]))
    head = "".join(f'<th scope="col">{label(h, h)}</th>' for h in H)
    body = ""
    for name, cells in rows:
        shown = "".join(f"<td>{escape(cell).replace(': ', ':<br>')}</td>" for cell in cells)
        body += f'<tr><th scope="row">{name}</th>{shown}</tr>'
    read = (f"Points of 100, each with its own 95 % interval. Better and worse are said where that stands among all "
            f"{len(found)} together (McNemar, Holm): an interval beside 0 is not enough. Likely: one comparison "
            "alone shows it in 80 of 100 runs.")  # fmt: skip
    said = "".join(f'<p class="alarm">{escape(alarm)}</p>' for alarm in alarms)
    said += f"<p>{escape(safety.words())}</p>" if safety and not safety.sure else ""
    return (f'<h3 class="pic">The merge against its sources</h3>{said}<table><thead><tr><td></td>{head}</tr></thead>'
            f'<tbody>{body}</tbody></table><p class="help">{read}</p>')  # fmt: skip


def _kept(board: Scoreboard, h: str) -> str:
    sides = {model: getattr(score, h) for model, score in board.scores.items()}
    kept = keeps(sides, max((s.score for m, s in sides.items() if m not in ("merge", "base")), default=None))
    return "no gain to keep" if kept is None else f"{round(100 * kept)} %" if kept >= 0 else "below the base"


def _least(probes: Sequence[Probe], outcomes: Mapping[str, Outcomes], h: str) -> str:
    least = smallest(probes, outcomes, h)
    return "none: too few probes" if least is None else f"{points(least)[1:]} points"


def lost_html(found: Sequence[Lost], n_probes: int, models: Sequence[str]) -> str:
    """What merging cost: the question, the source that passes, the merge that does not."""
    colours = roles([name for name in models if name not in ("merge", "base")])
    head = f'<h3 class="pic">Lost: a source passes, the merge fails <small>{len(found)} of {n_probes}</small></h3>'
    rows = "".join(
        f'<div><span class="ask">{mark(one.probe.h)}{escape(one.probe.messages[-1].content)} '
        f'<button type="button" class="link" data-why="{escape(one.probe.id)}">why?</button></span>'
        f"{label(one.source, colours[one.source])}<span>{escape(one.source_says)}</span>"
        f"{label('merge', 'merge')}<span>{escape(one.merge_says)} <small>{escape(one.label)}</small></span></div>"
        for one in found[:_MOST_LOST]
    )
    rest = f'<p class="help">and {len(found) - _MOST_LOST} more</p>' if len(found) > _MOST_LOST else ""
    return head + (rows or '<p class="help">Nothing was lost on these probes.</p>') + rest


def why_html(probe: Probe, found: Sequence[Without], more: bool) -> str:
    """Which removal turns the answer; `more`: others are still being asked."""
    whole, *without = found
    turned = [one.what for one in without if one.passed != whole.passed]
    sentence = f"Without {' or '.join(turned)} the verdict turns." if turned else "No single part turns the verdict."
    rows = "".join(
        f'<tr><th scope="row">{escape(f"without {one.what}" if one.what else "the merge")}</th>'
        f'<td><span class="verdict{" pass" if one.passed else ""}">{escape(one.label)}</span></td>'
        f'<td class="text">{escape(one.text)}</td></tr>'
        for one in found
    )
    return (f'<h3 class="pic">{escape(probe.messages[-1].content)}</h3><p>{"Asking…" if more else escape(sentence)}</p>'
            f"<table><tbody>{rows}</tbody></table>"
            '<p class="help">An expert is left out of the recipe; layers are held to the base.</p>')  # fmt: skip
