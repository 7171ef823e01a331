"""Instead of one merge: what the same experts reach when they are kept apart in memory, beside the merge's scores."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from eval.judging.probes import H
from eval.scoring.against import against, less_safe
from ui.marks import label
from ui.pieces import Output, static
from ui.scores import APART, TOWN, Exams, Scoreboard

_NAMES = {
    "router": ("Answer router", "one expert gives the whole answer"),
    "mixture": ("Mixture", "SMILE: experts chosen token by token"),
}


@dataclass(frozen=True)
class ApartPanel:
    score: gr.Button
    said: gr.HTML

    @property
    def outputs(self) -> set[Output]:
        return {self.score, self.said}


def build() -> ApartPanel:
    said = static(elem_id="apart", elem_classes=["sheet", "against"])
    return ApartPanel(gr.Button("Score them", variant="secondary", elem_id="score-apart"), said)


def draw(panel: ApartPanel, exams: Exams, board: Scoreboard) -> dict[Output, Any]:
    missing = [name for name in kinds(exams) if name not in board.apart]
    words = " and ".join(_NAMES[name][0].lower() for name in missing)
    return {
        panel.score: gr.update(visible=bool(missing), value=f"Score {words}"),
        panel.said: apart_html(exams, board),
    }


def kinds(exams: Exams) -> tuple[str, ...]:
    """The router learns from prompts of every expert, which only Town has here."""
    return APART if exams is TOWN else ("mixture",)


def apart_html(exams: Exams, board: Scoreboard) -> str:
    """A row each: its scores, and how it differs from the merge."""
    title = '<h3 class="pic">Instead of merging <small>the same experts, each kept in memory</small></h3>'
    what = " ".join(f"{name}: {words}." for name, words in (_NAMES[kind] for kind in kinds(exams)))
    what += " Neither can be saved as one model." if len(kinds(exams)) > 1 else " It cannot be saved as one model."
    probes, merge = board.exam.asked.probes, board.outcomes["merge"]
    rows, alarms = "", ""
    sources = {source: each for source, each in board.outcomes.items() if source != "merge"}
    for name in APART:
        if (found := board.apart.get(name)) is None:
            continue
        gaps = {one.h: one.words() for one in against(probes, {name: found.outcomes, "merge": merge}, name)}
        cells = "".join(
            f"<td><b>{100 * getattr(found.scores, h).score:.0f}</b><br>{escape(gaps[h]).replace(': ', ':<br>')}</td>"
            for h in H
        )
        rows += f'<tr><th scope="row">{_NAMES[name][0]}</th>{cells}</tr>'
        safety = less_safe(probes, {**sources, "merge": found.outcomes})
        if safety and safety.sure:
            alarms += f'<p class="alarm">{_NAMES[name][0]}: {escape(safety.words())}</p>'
    if not rows:
        return f'{title}<p class="help">{what} None was scored yet.</p>'
    head = "".join(f'<th scope="col">{label(h, h)}</th>' for h in H)
    return (
        f"{title}{alarms}<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="help">Share passed of 100; points against the merge with 95 % intervals. {what}</p>'
    )
