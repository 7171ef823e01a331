"""Chat's events: ask, take a probe, ask again, stop. One stream a session; a move never waits for it."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from eval.judging.probes import Probe
from eval.running.chat import BESIDE, By, Mixing, Pair
from eval.worker import Ask
from merging.errors import UserError
from ui.conversation import Turns, answers_html, asked, ended, heard, messages
from ui.live import Updates, chat_method, sources_of
from ui.measured import refuse_missing
from ui.page import Page
from ui.panels import chat
from ui.services import Services, keep, newest
from ui.session import Session, recipe_of

_TICK = 0.1  # seconds between two pictures of the answers


def ask(services: Services, page: Page, data: Mapping[Any, Any]) -> Iterator[Updates]:
    """The question in the box, or its Enter key."""
    question = (data[page.chat.question] or "").strip()
    if question:
        for i, updates in enumerate(_answer(services, page, data, question, None)):
            yield {page.chat.question: "", **updates} if i == 0 else updates  # it stays where it cannot be asked


def take(services: Services, page: Page, event: gr.EventData, data: Mapping[Any, Any]) -> Iterator[Updates]:
    """A chip, or `ask again`; which one is the browser's word, so it is looked up and not trusted."""
    said = event._data if isinstance(event._data, dict) else {}
    probe = chat.probes_by_id().get(str(said.get("probe", "")))
    question = probe.messages[-1].content if probe else ""
    again, turns = str(said.get("again", "")), data[page.turns]
    if again.isdecimal() and int(again) < len(turns):
        turn = turns[int(again)]
        question, probe = turn.question, chat.probes_by_id().get(turn.probe)
    if question:
        yield from _answer(services, page, data, question, probe)


def choose(page: Page, session: Session, beside: list[str], drafter: str | None, second: str | None, by: By) -> Updates:
    """Settings of a column show once it is chosen; those of Duo with the models on the desk."""
    models = [*sources_of(session).names, "merge", "base"]
    drafter = drafter if drafter in models else models[0]
    second = second if second in models else models[1]
    return {
        page.chat.route_by: gr.update(visible="router" in beside),
        page.chat.mixing_row: gr.update(visible="mixture" in beside),
        page.chat.pair_row: gr.update(visible="duo" in beside),
        page.chat.pair[0]: gr.update(choices=models, value=drafter),
        page.chat.pair[1]: gr.update(choices=models, value=second),
        page.chat.pair[3]: gr.update(visible=by == "likelihood"),
    }


def _pair(said: list[Any]) -> Pair:
    drafter, second, by, threshold, step = said
    return Pair(str(drafter or ""), str(second or ""), by, float(threshold), int(step))


def stop(services: Services, page: Page, session: Session) -> Updates:
    if stream := services.asks.get(session.id):
        stream.cancel()
    return {page.chat.stop: gr.update(interactive=False)}


def clear(services: Services, page: Page, session: Session) -> Updates:
    return {page.turns: (), page.chat.answers: _html(services, page, session, ())}


def _answer(
    services: Services, page: Page, data: Mapping[Any, Any], question: str, probe: Probe | None
) -> Iterator[Updates]:
    session = newest(services, data[page.session])
    if session.id in services.asks:
        raise UserError(
            "E_BUSY",
            "The last question is still being answered.",
            kept="Its answers go on; what is in the box stays there.",
            do="Wait for it, or stop it first.",
        )
    refuse_missing(session.recipe)
    sources = sources_of(session)
    beside = [name for name in BESIDE if name in (data[page.chat.beside] or ())]
    models = ("merge", *beside, "base", *sources.names)
    turns = asked(data[page.turns], question, models, probe=probe, follows=bool(data[page.chat.follow]))
    request = Ask(
        session.id, sources, recipe_of(session), {model: messages(turns, model) for model in models},
        float(data[page.chat.temperature]), int(data[page.chat.length]), int(data[page.chat.seed] or 0),
        Mixing(*(int(data[knob] or 0) for knob in page.chat.mixing)),
        _pair([data[field] for field in page.chat.pair]) if "duo" in beside else None,
        data[page.chat.route_by],
    )  # fmt: skip
    stream = services.worker.ask(request)
    keep(services.asks, session.id, stream)
    try:
        yield {**_show(services, page, session, turns), page.chat.ask: gr.update(visible=False),
               page.chat.stop: gr.update(visible=True, interactive=True)}  # fmt: skip
        drawn = time.monotonic()
        for event in stream:
            turns = heard(turns, event)
            if time.monotonic() - drawn > _TICK:
                yield _show(services, page, session, turns)
                drawn = time.monotonic()
    except UserError:
        yield {**_show(services, page, session, ended(turns)), **_idle(page)}
        raise
    finally:  # also when the visitor leaves
        services.asks.pop(session.id, None)
        stream.cancel()
    yield {**_show(services, page, session, ended(turns)), **_idle(page)}


def _show(services: Services, page: Page, session: Session, turns: Turns) -> Updates:
    return {page.turns: turns, page.chat.answers: _html(services, page, session, turns)}


def _html(services: Services, page: Page, session: Session, turns: Turns) -> str:
    latest = newest(services, session)
    look = services.looks.get(session.id)
    updating = look is not None and services.ready.get(session.id) != look.digest
    names = look.family.experts if look else sources_of(session).names
    return answers_html(turns, names, chat.probes_by_id(), chat_method(services, latest), updating)


def _idle(page: Page) -> Updates:
    return {page.chat.ask: gr.update(visible=True), page.chat.stop: gr.update(visible=False)}
