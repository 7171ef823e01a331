"""Chat: one question, every model's answer side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import shorten
from typing import Any, get_args

import gradio as gr

from eval.judging.probes import H, Probe, ProbeSet
from eval.running.chat import BESIDE, By, Mixing, RouteBy
from ui.conversation import Turns, answers_html
from ui.pieces import Output
from ui.scores import STANDARD, TOWN
from ui.session import MAX_EXPERTS

CHIPS_EACH = 3
_BESIDE = {
    "router": "Router: one expert gives the whole answer",
    "mixture": "Mixture (SMILE): experts are chosen token by token",
    "duo": "Duo: one model drafts, another takes or writes",
}
_CLICKS = """element.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-probe],[data-again]");
  if (hit) trigger("select", { ...hit.dataset });
});"""


@dataclass(frozen=True)
class ChatPanel:
    question: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    chips: gr.HTML
    answers: gr.HTML
    follow: gr.Checkbox
    temperature: gr.Slider
    length: gr.Slider
    seed: gr.Number
    beside: gr.CheckboxGroup
    route_by: gr.Radio
    mixing: tuple[gr.Slider, gr.Slider, gr.Slider]  # rank, gate rank, experts at a time
    mixing_row: gr.Row
    pair: tuple[gr.Dropdown, gr.Dropdown, gr.Radio, gr.Slider, gr.Slider]  # the fields of Pair
    pair_row: gr.Row
    clear: gr.Button
    problem: gr.HTML

    @property
    def settings(self) -> set[Output]:
        return {self.follow, self.temperature, self.length, self.seed, self.beside, self.route_by, *self.mixing,
                *self.pair}  # fmt: skip


def build(experts: Sequence[str], method: str) -> ChatPanel:
    with gr.Row(elem_classes=["askrow"]):
        question = gr.Textbox(
            show_label=False, label="Question", placeholder="Ask all models", max_lines=4, lines=1, elem_id="q",
            interactive=True, scale=8, container=False,
        )  # fmt: skip
        ask = gr.Button("Ask", variant="primary", scale=1, min_width=90, elem_id="ask")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=90, visible=False)
    chips = gr.HTML(chips_html(TOWN.first.asked), apply_default_css=False, js_on_load=_CLICKS, elem_classes=["chips"])
    problem = gr.HTML(visible=False, apply_default_css=False, js_on_load=None)
    with gr.Accordion("Temperature, length, seed; router, mixture, duo", open=False, elem_classes=["twin"]):
        with gr.Row(elem_classes=["duo"]):
            temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature", info="0 always takes the likeliest word.",
                                    interactive=True, elem_classes=["knob"])  # fmt: skip
            length = gr.Slider(8, 512, 64, step=8, label="Length", info="Most tokens of one answer.",
                               interactive=True, elem_classes=["knob"])  # fmt: skip
            seed = gr.Number(0, label="Seed", info="The same seed draws the same answer.", precision=0, minimum=0,
                             interactive=True, elem_classes=["slim"])  # fmt: skip
        beside = gr.CheckboxGroup(
            [(_BESIDE[name], name) for name in BESIDE], value=[], label="Beside the merge",
            info="Each adds an answer and its time.", interactive=True, elem_id="beside",
        )  # fmt: skip
        route_by = gr.Radio(
            get_args(RouteBy), value="prompts", label="Router chooses by", visible=False, interactive=True,
            info="Prompts of each expert's own skill, where there are; or the directions its delta acts on.",
            elem_classes=["seg"], elem_id="route-by",
        )  # fmt: skip
        usual = Mixing()
        with gr.Row(elem_classes=["duo"], visible=False) as mixing_row:
            mixing = (
                gr.Slider(1, 512, usual.rank, step=1, label="Mixture rank", info="Directions an expert adds.",
                          interactive=True, elem_classes=["knob"]),
                gr.Slider(1, 512, usual.gate_rank, step=1, label="Gate rank", info="Directions the router looks at.",
                          interactive=True, elem_classes=["knob"]),
                gr.Slider(1, MAX_EXPERTS, usual.top, step=1, label="Experts at a time", info="In each matrix.",
                          interactive=True, elem_classes=["knob"]),
            )  # fmt: skip
        with gr.Row(elem_classes=["duo"], visible=False) as pair_row:
            pair = (
                gr.Dropdown([], label="Drafts", interactive=True, min_width=110),
                gr.Dropdown([], label="Takes or writes", interactive=True, min_width=110),
                gr.Radio(get_args(By), value="likelihood", label="Taken by", interactive=True, elem_classes=["seg"]),
                gr.Slider(0, 1, 0.7, step=0.05, label="Threshold", info="0 takes every draft.",
                          interactive=True, elem_classes=["knob"]),
                gr.Slider(1, 64, 16, step=1, label="Piece", info="Most tokens at once.",
                          interactive=True, elem_classes=["knob"]),
            )  # fmt: skip
    with gr.Row(elem_classes=["slim"]):
        follow = gr.Checkbox(False, label="Follow up: the models see what was said before", interactive=True, scale=8)
        clear = gr.Button("Clear", variant="secondary", size="sm", scale=1, min_width=90)
    answers = gr.HTML(
        answers_html((), experts, {}, method, False), apply_default_css=False, js_on_load=_CLICKS, elem_id="answers",
        min_height=420,
    )  # fmt: skip
    return ChatPanel(
        question,
        ask,
        stop,
        chips,
        answers,
        follow,
        temperature,
        length,
        seed,
        beside,
        route_by,
        mixing,
        mixing_row,
        pair,
        pair_row,
        clear,
        problem,
    )


def draw(
    panel: ChatPanel, asked: ProbeSet, turns: Turns, experts: Sequence[str], method: str, updating: bool
) -> dict[Output, Any]:
    """`asked`: the probes of the family on the desk."""
    return {
        panel.chips: chips_html(asked),
        panel.answers: answers_html(turns, experts, probes_by_id(), method, updating),
    }


def chips(probes: Iterable[Probe]) -> list[Probe]:
    """A few probes of each H: those with a label of their own, and of different kinds as far as there are."""
    listed = list(probes)
    chosen: list[Probe] = []
    for h in H:
        mine = [probe for probe in listed if probe.h == h]
        mine = [probe for probe in mine if probe.label] or mine
        firsts = list({probe.category: probe for probe in reversed(mine)}.values())[::-1]
        chosen += [*firsts, *(probe for probe in mine if probe not in firsts)][:CHIPS_EACH]
    return chosen


def chips_html(probes: ProbeSet) -> str:
    return "".join(
        f'<button type="button" class="chip r-{probe.h}" data-probe="{escape(probe.id)}" '
        f'title="{escape(probe.messages[-1].content)}">'
        f"{escape(probe.label or shorten(probe.messages[-1].content, 28, placeholder=' …'))}</button>"
        for probe in chips(probes.probes)
    )


def probes_by_id() -> Mapping[str, Probe]:
    """Of every family: what was asked of one stays in sight when another comes."""
    return {probe.id: probe for exams in (TOWN, STANDARD) for probe in exams.first.asked.probes}
