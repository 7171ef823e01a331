"""The status line: what is merged, how fresh the pictures are, and the scores or the work under way."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from eval.judging.probes import H
from eval.scoring.board import HScore, Scores
from merging.look import Limit, Look
from merging.methods import METHODS
from merging.recipe import Recipe
from ui.marks import LOGO, label
from ui.pieces import static
from ui.session import desk_of

_MOST_KNOBS = 4


@dataclass(frozen=True)
class StatusPanel:
    line: gr.HTML
    stop: gr.Button


@dataclass(frozen=True)
class Busy:
    """Long work under way: `Scoring 412 of 900 probes`, the share done, seconds left; or what it left, once `over`."""

    doing: str
    what: str
    share: float
    seconds_left: float | None = None
    over: bool = False


def build() -> StatusPanel:
    with gr.Row(elem_id="status"):
        line = static('<div class="line" role="status"><b class="method">Starting…</b></div>')
        stop = gr.Button("Stop", variant="stop", size="sm", visible=False, elem_classes=["stop"])
    return StatusPanel(line, stop)


def tier(look: Look) -> tuple[str, str]:
    """What the pictures are made of, and how soon they came or what follows."""
    awaited = {
        "sample": ("sample", "exact numbers follow"),
        "maps": ("exact maps", "the rest follows"),
        "sketch": ("sketch", "exact numbers follow"),
    }
    exact = f"exact up to rank budget {look.limit.shown:g}" if look.limit else "exact"
    return awaited.get(look.tier, (exact, f"live in {look.seconds:.2f} s"))


def line_html(recipe: Recipe, look: Look, *, saved: bool = False, scores: Scores | None = None,
              busy: Busy | None = None) -> str:  # fmt: skip
    (made_of, when), method, said = tier(look), METHODS[recipe.method], desk_of(recipe)
    numbers = [k for k in method.numbers(dict(recipe.parameters)) if not k.per_expert][:_MOST_KNOBS]
    knobs = "".join(
        f'<span class="knobline">{escape(_short(k.label))} {said.knobs[k.key]:.4g}</span>'
        for k in numbers
        if isinstance(said.knobs[k.key], (int, float))
    )
    live = "live" if look.tier == "exact" else "live stale"
    limit = _limit_html(look.limit) if look.limit else ""
    right = _busy_html(busy) if busy else _scores_html(scores)
    return (
        f'<div class="line" role="status">{LOGO}<b class="method">{escape(method.title.split(" (")[0])}</b>{knobs}'
        f'<span class="{live}"><span class="tier">{made_of}</span>, {when}</span>'
        f"<small>{'saved' if saved else 'not saved'}</small>{limit}{right}</div>"
    )


def _limit_html(limit: Limit) -> str:
    asked = f"{limit.asked:g}"
    says = f"Pictures and chat at rank budget {limit.shown:g}: the factors of {asked} would not fit the cache; "
    says += f"an export uses {asked}."
    return f'<span class="limit" title="{says}">{says}</span>'


def _short(name: str) -> str:
    return "λ" if "λ" in name else name.lower()


def _scores_html(scores: Scores | None) -> str:
    if scores is None:
        return '<span class="scores unscored"><small>not scored</small></span>'
    sides: Mapping[str, HScore] = {h: getattr(scores, h) for h in H}
    far = max(max(side.high - side.score, side.score - side.low) for side in sides.values())
    each = "".join(f'<span class="score">{label(h, h)} <b>{100 * s.score:.0f}</b></span>' for h, s in sides.items())
    return f'<span class="scores">{each}<small>±{100 * far:.0f} at most</small></span>'


def _busy_html(busy: Busy) -> str:
    left = "" if busy.seconds_left is None else f" · {seconds(busy.seconds_left)} left"
    return (
        f'<span class="busy"><b>{escape(busy.doing)}</b> {escape(busy.what)}{left}</span>'
        f'<i class="progress" style="width:{100 * min(max(busy.share, 0), 1):.1f}%"></i>'
    )


def seconds(value: float) -> str:
    if value < 90:
        return f"{max(1, round(value))} s"
    return f"{round(value / 60)} min"
