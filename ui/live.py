"""What follows a slider: session -> recipe -> worker -> the pictures of the tab in front. Latest move wins."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import gradio as gr

from eval.worker import Move, Sources
from merging.live_events import FocusReady, FoldedReady, LiveEvent, LookReady, SampleReady, StateReady
from merging.look import Look
from merging.methods import METHODS
from merging.plan import check
from merging.sources import spelled_out
from ui import controls, history
from ui.conversation import Turns
from ui.measured import is_missing, next_step, refuse_missing, texts_read, with_measurement
from ui.page import Page
from ui.panels import board, chat, health, map, method, passports, recipe, search, spectra, status, tried
from ui.services import Services, board_of, drawing, exams_of, keep, newest
from ui.session import Session, looking, moved, names_of, recipe_of, with_method

Updates = dict[Any, Any]


def sources_of(session: Session) -> Sources:
    """The family on screen: all experts, also where the method takes fewer."""
    recipe_ = spelled_out(session.recipe)
    return Sources(recipe_.base or "", tuple(expert.model for expert in recipe_.experts), names_of(session.recipe),
                   recipe_.stages)  # fmt: skip


def move(services: Services, page: Page, before: Session, *columns: Mapping[str, Any]) -> Iterator[Updates]:
    """A knob has changed. Nothing is sent before the first picture: every message costs time."""
    session = moved(before, controls.desk(before.recipe, *columns))
    if session is before:  # a Reset or a release that changed nothing
        return
    session = with_measurement(session, services.home)  # the shaper may need one
    session = looking(session, newest(services, session))
    keep(services.moved, session.id, session.recipe)
    changes = {**hold(services, page, session), page.map.fitted: ""}
    if is_missing(session.recipe) or is_missing(before.recipe):
        changes |= measure_button(services, page, session)
    if is_missing(session.recipe):
        yield changes
        refuse_missing(session.recipe)
    if method.notice(before) != method.notice(session):
        changes |= card(page, session)
    if session.past != before.past:
        changes[page.method.preset] = method.preset_of(session.recipe, services.presets)
    for updates in follow(services, page, session):
        # Another handler, say of another method, may have put its own on the desk meanwhile, card and all.
        yield changes | updates if newest(services, session).recipe is session.recipe else updates
        changes = {}
    if changes and newest(services, session).recipe is session.recipe:  # another handler draws this move's pictures
        yield changes


def as_seen(handler: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[Updates]]:
    """A handler that also takes the columns of knobs: what is pressed acts on what they say, also while a slider's last
    step waits in the browser for the one before it."""

    def pressed(services: Services, page: Page, session: Session, turns: Turns, *given: Any) -> Iterator[Updates]:
        *own, weights, knobs = given
        if services.moved.get(session.id) is session.recipe:  # else a preset may still be on its way to the columns
            session = with_measurement(moved(session, controls.desk(session.recipe, weights, knobs)), services.home)
        yield from handler(services, page, session, turns, *own)

    return pressed


def change_method(services: Services, page: Page, before: Session, name: str) -> Iterator[Updates]:
    """Another method: its knobs stand as they were left."""
    if name not in METHODS or name == before.recipe.method:
        return
    session = with_measurement(with_method(before, name), services.home)
    session = looking(session, newest(services, session))
    yield {
        **hold(services, page, session),
        page.controls.knobs: controls.knobs(session.recipe),
        **card(page, session),
        **measure_button(services, page, session),
        page.method.roll: method.draw_roll(session.recipe),
        **map.draw_fits(page.map, METHODS[name]),
        page.map.fitted: "",
        page.method.preset: method.preset_of(session.recipe, services.presets),
    }
    refuse_missing(session.recipe)
    yield from follow_held(services, page, session)


def hold(services: Services, page: Page, session: Session) -> Updates:
    """This is what the page holds from now on, also for a handler that begins before Gradio has heard of it."""
    keep(services.sessions, session.id, session)
    return {page.session: session}


def card(page: Page, session: Session) -> Updates:
    return {page.method.card: method.card_html(METHODS[session.recipe.method], method.notice(session),
                                               texts_read(session.recipe))}  # fmt: skip


def measure_button(services: Services, page: Page, session: Session) -> Updates:
    return {
        page.method.measure: gr.update(visible=is_missing(session.recipe)),
        page.method.more: method.draw_more(next_step(session.recipe, services.home)),
    }


def follow_held(services: Services, page: Page, session: Session, *, whole: bool = False) -> Iterator[Updates]:
    """The same for a session that has been held since its handler's last message, unless another recipe is by now."""
    if newest(services, session).recipe is session.recipe:
        yield from follow(services, page, looking(session, newest(services, session)), whole=whole)


def follow(services: Services, page: Page, session: Session, *, whole: bool = False) -> Iterator[Updates]:
    """Ask the worker and draw what comes where the visitor looks by then; `whole` (or other locks) draws also what no
    slider changes."""
    if (busy := services.busy.get(session.id)) and busy.over:
        services.busy.pop(session.id)
    outputs = session.tab == "map" and session.measure == "output"
    stream = services.worker.ask(Move(session.id, sources_of(session), recipe_of(session), session.focus, outputs))
    with drawing(services, session):
        keep(services.asked, session.id, max(stream.number, services.asked.get(session.id, 0)))
        shown, drawn = services.looks.get(session.id), services.drawn.get(session.id)
    whole = whole or (drawn is not None and drawn.locks != session.recipe.locks)
    before = shown if shown and shown.tier == "exact" and not whole else None
    for event in stream:
        with drawing(services, session):
            if services.asked.get(session.id, 0) > stream.number:  # a later move draws its own
                return
            now = looking(session, newest(services, session))
            if now != session or (before and not _shares(event, before, now.tab)):
                before = None  # another handler drew what is in front, from older numbers; or it is of another family
            session = now
            if isinstance(event, LookReady):
                keep(services.moves, session.id, stream)
            updates = _draw_event(services, page, session, event, before)
        if updates:
            yield updates
        if isinstance(event, LookReady):
            lacks = session.tab == "map" and session.measure not in event.look.conflicts  # it came in front meanwhile
            if lacks and services.asked.get(session.id) == stream.number:
                yield from follow(services, page, session, whole=True)
            return


def _shares(event: LiveEvent, before: Look, tab: str) -> bool:
    """Whether something of earlier pictures may stay beside what an event brings."""
    if isinstance(event, SampleReady | LookReady):
        return event.look.family == before.family
    return not (isinstance(event, FocusReady) and event.view.sketched and tab == "map")


def _draw_event(services: Services, page: Page, session: Session, event: LiveEvent, before: Look | None) -> Updates:
    """What an event of a move puts on the page, beside what stays as it was in `before`."""
    shown = services.looks.get(session.id)
    if isinstance(event, FocusReady) and session.tab == "map" and shown:
        slow = event.seconds * len(shown.family.matrices) > 1.0  # the others take long: worth its own message
        if not slow or event.view.matrix.name != session.focus:
            return {}
        found = map.draw_matrix(page.map, event.view)
        return found if before is None else {page.map.matrix: found[page.map.matrix]}
    if not isinstance(event, SampleReady | LookReady) or (isinstance(event, SampleReady) and before):
        return {}
    keep(services.looks, session.id, event.look)
    keep(services.drawn, session.id, session.recipe)
    updates: Updates = {}
    if isinstance(event, SampleReady):  # what is open stays so, wherever the exact numbers are worst
        session = replace(session, focus=event.look.opened(session.focus).name)
        updates = hold(services, page, looking(newest(services, session), session))
    return updates | draw(services, page, session, event.look, before)


def settled(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """What may follow a move a moment later: tables, texts, and the news that Chat answers with this merge."""
    stream = services.moves.pop(session.id, None)
    look = services.looks.get(session.id)
    # No move changes what Search and Models say, and Models may speak of a family that was typed and does not open.
    shows = session.tab not in ("search", "models")
    updates = draw_rest(services, page, session, turns, look) if look and shows else {}
    if updates and services.looks.get(session.id) is look:  # a later move may have drawn its own meanwhile
        yield updates
    for event in stream or ():
        look, now = services.looks.get(session.id), newest(services, session)
        if not isinstance(event, FoldedReady | StateReady) or services.ready.get(session.id) == event.digest:
            continue
        if look and look.digest == event.digest:
            keep(services.ready, session.id, event.digest)
            if now.tab == "chat":
                yield draw_rest(services, page, now, turns, look)
    latest = newest(services, session)
    # Recipe has its text before it is opened: what comes after that would take away what was typed at once.
    yield {page.browser: kept(services, latest), **draw_file(services, page, latest)}


def draw(services: Services, page: Page, session: Session, look: Look, before: Look | None) -> Updates:
    """The status line and the pictures in front; what is as it was in `before` is left alone."""
    updates: Updates = {page.status.line: status_line(services, session, look)}
    if session.tab == "map":
        updates |= map.draw(page.map, look, session, before)
    elif session.tab == "spectra":
        updates |= spectra.draw(page.spectra, look, session, before)
    return updates


def draw_rest(services: Services, page: Page, session: Session, turns: Turns, look: Look) -> Updates:
    """What is no picture on the tab in front."""
    if session.tab == "map":
        there = session.tab in session.tables and session.measure in look.conflicts
        return map.draw_table(page.map, look, session) if there else {}
    if session.tab == "spectra":
        return spectra.draw_tables(page.spectra, look, session) if look.views and session.tab in session.tables else {}
    if session.tab == "chat":
        updating = services.ready.get(session.id) != look.digest
        title, asked = chat_method(services, session), exams_of(services, session.recipe).first.asked
        return chat.draw(page.chat, asked, turns, look.family.experts, title, updating)
    if session.tab == "board":
        return draw_board(services, page, session, look)
    if session.tab == "search":
        return draw_search(services, page, session)
    if session.tab == "models":
        return passports.draw(page.passports, recipe_of(session), check(recipe_of(session)))
    return draw_file(services, page, session)


def chat_method(services: Services, session: Session) -> str:
    """Of the merge that chat speaks of: the last that was made, while the one on the desk waits for a measurement."""
    recipe = services.drawn.get(session.id, session.recipe) if is_missing(session.recipe) else session.recipe
    return METHODS[recipe.method].title


def draw_file(services: Services, page: Page, session: Session) -> Updates:
    """The recipe as text, where it is another one than was sent last: the same would take away what was typed since."""
    updates = recipe.draw(page.recipe, session, exams_of(services, session.recipe).full.probes)
    if services.texts.get(session.id) == updates[page.recipe.yaml]:
        return {}
    keep(services.texts, session.id, updates[page.recipe.yaml])
    return updates


def draw_search(services: Services, page: Page, session: Session) -> Updates:
    job = services.current.get(session.owner)
    running = job is not None and job.kind == "search" and services.jobs.is_running(job)
    return search.draw(page.search, services.searches.get(session.owner), running)


def draw_board(services: Services, page: Page, session: Session, look: Look) -> Updates:
    """The scores of the merge on the desk, also those that an earlier visit made, among all that were tried."""
    found = board_of(services, look.digest)
    exams = exams_of(services, session.recipe)
    tries = history.tried(session, exams.first)
    if found is None and any(one.digest == look.digest for one in tries):
        found = history.recalled(session, look.digest, exams.first)
        if found:
            keep(services.boards, (look.digest, exams.first), found)
    sources = {model: scores for model, scores in (found.scores if found else {}).items() if model != "merge"}
    same = tries if found and found.exam == exams.first else ()
    return {
        page.status.line: status_line(services, session, look),
        **board.draw(page.board, exams, found, {history.words(one): one.outcomes for one in same}),
        **health.draw(page.board.health, services.health.get(look.digest)),
        **tried.draw(page.board.tried, tries, exams.first.asked.probes, look.digest, sources),
    }


def status_line(services: Services, session: Session, look: Look) -> str:
    """It speaks of the merge in the pictures, which is not the one on the desk where that does not merge."""
    scored = board_of(services, look.digest)
    return status.line_html(
        services.drawn.get(session.id, session.recipe),
        look,
        saved=services.saved.get(session.owner) == look.digest,
        scores=scored.scores["merge"] if scored else None,
        busy=services.busy.get(session.id),
    )


def kept(services: Services, session: Session) -> dict[str, str]:
    """What the browser keeps over a reload."""
    job = services.current.get(session.owner)
    return {"owner": session.owner, "recipe": session.recipe.to_yaml(), "job": job.id if job else ""}
