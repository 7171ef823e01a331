"""What has been said in Chat: frozen turns, the steps between them, and their HTML. Knows nothing of Gradio.

Everything a model or a person wrote is escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from eval.judging.judges import judge
from eval.judging.probes import Probe
from eval.running.chat import BESIDE, Answered, ChatEvent, Prompt, Routing, Token
from merging.events import Notice
from merging.plots.picture import roles
from ui.marks import label
from ui.routing import marked, routing_html, table_html

MAX_TURNS = 20
MOST_COLUMNS = 6  # that can be read beside each other; more answers stand below each other
_MAX_TEXT = 4000  # characters kept of one answer or prompt: a session stays small


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question, as far as it has come."""

    model: str
    text: str = ""
    prompt: str = ""
    seconds: float | None = None  # None: still being written, or stopped
    n_tokens: int = 0
    routing: Routing | None = None


@dataclass(frozen=True)
class Turn:
    """One question. `follows` says that the models saw the turn before it; `earlier` are messages ahead of it."""

    question: str
    answers: tuple[Answer, ...]
    probe: str = ""
    earlier: tuple[tuple[str, str], ...] = ()
    follows: bool = False
    notices: tuple[str, ...] = ()
    running: bool = True


Turns = tuple[Turn, ...]


def asked(turns: Turns, question: str, models: Sequence[str], *, probe: Probe | None, follows: bool) -> Turns:
    earlier = tuple((m.role, m.content) for m in probe.messages[:-1]) if probe else ()
    turn = Turn(question, tuple(Answer(model) for model in models), probe.id if probe else "", earlier,
                follows and bool(turns) and probe is None)  # fmt: skip
    return (*turns, turn)[-MAX_TURNS:]


def messages(turns: Turns, model: str) -> list[dict[str, str]]:
    """The conversation that `model` reads, ending with the last question; its own earlier answers are in it."""
    first = len(turns) - 1
    while first > 0 and turns[first].follows:
        first -= 1
    said = [{"role": role, "content": text} for role, text in turns[first].earlier]
    for turn in turns[first:]:
        said.append({"role": "user", "content": turn.question})
        answer = next((a.text for a in turn.answers if a.model == model), "")
        if turn is not turns[-1] and answer:
            said.append({"role": "assistant", "content": answer})
        elif turn is not turns[-1]:
            said.pop()
    return said


def heard(turns: Turns, event: ChatEvent) -> Turns:
    """The turns after one event of the stream."""
    last = turns[-1]
    if isinstance(event, Notice):
        return (*turns[:-1], replace(last, notices=(*last.notices, event.text)))
    return (*turns[:-1], replace(last, answers=tuple(_told(answer, event) for answer in last.answers)))


def ended(turns: Turns) -> Turns:
    return (*turns[:-1], replace(turns[-1], running=False)) if turns else turns


def _told(answer: Answer, event: Prompt | Token | Answered | Routing) -> Answer:
    if answer.model != event.model:
        return answer
    if isinstance(event, Routing):
        return replace(answer, routing=event)
    text = event.text[:_MAX_TEXT]
    if isinstance(event, Prompt):
        return replace(answer, prompt=text)
    if isinstance(event, Token):
        return replace(answer, text=text)
    return replace(answer, text=text, seconds=event.seconds, n_tokens=event.n_tokens)


def answers_html(turns: Turns, experts: Sequence[str], probes: Mapping[str, Probe], method: str, updating: bool) -> str:
    """Names on top, then the newest question first: one row a question, so that answers line up.

    What stands beside the merge is what the newest question was put to.
    """
    newest = {answer.model for answer in turns[-1].answers} if turns else set[str]()
    beside = [name for name in BESIDE if name in newest]
    models = ("merge", *beside, "base", *experts)
    colours = {**roles(experts), **dict.fromkeys(BESIDE, "beside")}
    about = {"merge": "updating…" if updating else f"{method.split(' (')[0]}, not saved", "base": "before training",
             "router": "one expert a question", "mixture": "experts by token", "duo": "one drafts"}  # fmt: skip
    heads = "".join(
        f'<div class="r-{colours[m]}">{label(m, colours[m])} <small>{escape(about.get(m, "expert"))}</small></div>'
        for m in models
    )
    rows = "".join(_row(i, turn, models, colours, probes) for i, turn in reversed(list(enumerate(turns))))
    if not rows:
        rows = (
            '<p class="help" style="padding:16px 0">Nothing has been asked yet. Type a question, or take a probe.</p>'
        )
    many = " many" if len(models) > MOST_COLUMNS else ""
    return f'<div class="turns{many}" style="--columns:{len(models)}"><div class="heads">{heads}</div>{rows}</div>'


def _row(index: int, turn: Turn, models: Sequence[str], colours: Mapping[str, str], probes: Mapping[str, Probe]) -> str:
    probe = probes.get(turn.probe)
    kind = label(f"{probe.h} probe", probe.h, capital=True) if probe else ""
    kind = "<small>follow-up</small>" if turn.follows else kind
    before = "".join(f"<p><small>{escape(role)}: {escape(text)}</small></p>" for role, text in turn.earlier)
    again = f'<button type="button" class="link" data-again="{index}">ask again</button>'
    by_model = {answer.model: answer for answer in turn.answers}
    cells = "".join(_cell(by_model.get(m, Answer(m)), turn, probe, colours) for m in models)
    notices = "".join(f'<p class="help">{escape(text)}</p>' for text in turn.notices)
    return (
        f'<section class="turn" data-turn="{index}">{before}<header>{kind}<h3>{escape(turn.question)}</h3>'
        f'<span class="links">{again}</span></header>'
        f'<div class="row5">{cells}</div>{notices}{_prompts(turn)}{_pieces(turn)}</section>'
    )


def _prompts(turn: Turn) -> str:
    """What each model read; models that read the same share one entry."""
    readers: dict[str, list[str]] = {}
    for answer in turn.answers:
        if answer.prompt:
            readers.setdefault(answer.prompt, []).append(answer.model)
    if not readers:
        return ""
    said = "".join(
        f"<dt><small>{escape(', '.join(models))}</small></dt><dd><pre>{escape(text)}</pre></dd>"
        for text, models in readers.items()
    )
    return f'<details class="exact"><summary><small>exact prompt</small></summary><dl>{said}</dl></details>'


def _pieces(turn: Turn) -> str:
    """Where answers come from several experts, piece by piece."""
    return "".join(
        f'<details class="exact"><summary><small>{escape(answer.model)}, piece by piece</small></summary>'
        f"{table_html(answer.routing)}</details>"
        for answer in turn.answers
        if answer.routing and answer.routing.parts
    )


def _cell(answer: Answer, turn: Turn, probe: Probe | None, colours: Mapping[str, str]) -> str:
    waits = turn.running and answer.seconds is None
    nothing = "no answer" if answer in turn.answers else "not asked"
    said = marked(answer.routing, colours) if answer.routing else ""
    text = (said or escape(answer.text)).replace("\n", "<br>") or ("…" if waits else f"<i>{nothing}</i>")
    verdict = ""
    if probe and answer.seconds is not None:
        judged = judge(probe, answer.text)
        verdict = f'<p class="verdict {"pass" if judged.passed else "fail"}">{escape(judged.label)}</p>'
    routed = routing_html(answer.routing, colours) if answer.routing else ""
    return (
        f'<div class="answer" data-model="{escape(answer.model)}"{" data-running" if waits else ""}>'
        f"{label(answer.model, colours[answer.model])}<div><p>{text}</p>{verdict}{routed}</div></div>"
    )
