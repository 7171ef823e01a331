"""Blind votes: two models answer one question; who they are is told after the vote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr

from eval.scoring.votes import ENOUGH, RESULTS, Result, Vote, counts, strengths
from merging.plots import roles
from merging.words import count
from ui.marks import label
from ui.pieces import Output, static

_WORDS: dict[Result, str] = {"left": "A is better", "tie": "A tie", "bad": "Both are bad", "right": "B is better"}


@dataclass(frozen=True)
class VotesPanel:
    question: gr.Textbox
    ask: gr.Button
    answers: gr.HTML
    row: gr.Row
    buttons: dict[Result, gr.Button]  # by result
    tally: gr.HTML

    @property
    def outputs(self) -> set[Output]:
        return {self.question, self.ask, self.answers, self.row, self.tally}


def build() -> VotesPanel:
    with gr.Accordion("Vote blind", open=False, elem_classes=["twin"], elem_id="votes"):
        with gr.Row(elem_classes=["askrow"]):
            question = gr.Textbox(
                show_label=False, label="Question for two models", max_lines=2, interactive=True, scale=8,
                placeholder="A question, or leave it empty for a probe", container=False,
            )  # fmt: skip
            ask = gr.Button("Ask two", variant="secondary", scale=1, min_width=90)
        answers = static(elem_id="ballot")
        with gr.Row(visible=False, elem_classes=["slim"]) as row:
            buttons: dict[Result, gr.Button] = {
                result: gr.Button(words, size="sm", min_width=90) for result, words in _WORDS.items()
            }
        tally = static(elem_classes=["sheet"])
    assert set(buttons) == set(RESULTS)
    return VotesPanel(question, ask, answers, row, buttons, tally)


def ballot_html(question: str, answers: tuple[str, str], names: tuple[str, str] | None, experts: Sequence[str]) -> str:
    """Names only once the vote is in."""
    colours = roles(experts)
    heads = ["A", "B"]
    if names is not None:
        heads = [f"{side}: {label(name, colours[name])}" for side, name in zip("AB", names, strict=True)]
    cells = "".join(
        f'<div class="answer"><div><p><b>{head}</b></p><p>{escape(text) or "<i>no answer</i>"}</p></div></div>'
        for head, text in zip(heads, answers, strict=True)
    )
    return (f'<section class="turn"><header><h3>{escape(question)}</h3></header>'
            f'<div class="row5" style="--columns:2">{cells}</div></section>')  # fmt: skip


def tally_html(votes: Sequence[Vote], called: Mapping[str, str]) -> str:
    """Counts; with enough votes also strengths with intervals of rank."""
    if not votes:
        return '<p class="help">No vote yet.</p>'
    found, strong = counts(votes), {one.model: one for one in strengths(votes)}
    order = list(strong) or sorted(found)
    head = ("won", "lost", "tied", "both bad", *(("wins of 100 against the average", "rank") if strong else ()))
    rows = ""
    for model in order:
        cells = [str(found[model][word]) for word in ("won", "lost", "tied", "bad")]
        if one := strong.get(model):
            rank = f"{one.first}" if one.first == one.last else f"{one.first} to {one.last}"
            cells += [f"{100 * one.share:.0f}", rank]
        shown = "".join(f"<td>{cell}</td>" for cell in cells)
        rows += f'<tr><th scope="row">{escape(called.get(model, f"merge {model[:6]}"))}</th>{shown}</tr>'
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    said = f"{count(votes, 'vote')}. " + (
        "Bradley and Terry’s strengths with Davidson’s ties; ranks are 95 % intervals."
        if strong
        else f"Counts only: under {ENOUGH} votes, two that flip can change who leads."
    )
    return f'<table><thead><tr><td></td>{titles}</tr></thead><tbody>{rows}</tbody></table><p class="help">{said}</p>'
