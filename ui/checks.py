"""Board's quick looks, which the live worker answers beside Chat."""

from collections.abc import Iterator

import gradio as gr

from eval.scoring.health import Health
from eval.scoring.why import Without
from eval.worker import Examine, Why
from merging.errors import UserError
from merging.plan import make_plan
from ui.conversation import Turns
from ui.history import tried
from ui.live import Updates, draw_board, sources_of
from ui.measured import refuse_missing
from ui.page import Page
from ui.panels import board, health
from ui.panels.tried import compared_html
from ui.services import Services, board_of, exams_of, keep, newest
from ui.session import Session, names_of, recipe_of


def examine(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """The health check; its finding belongs to the digest of the merge that was on the desk when it began."""
    look = services.looks.get(session.id)
    if look is None:
        return
    refuse_missing(session.recipe)
    yield health.busy(page.board.health)
    recipe = recipe_of(session)
    digest = make_plan(recipe).digest
    try:
        asked = Examine(session.id, sources_of(session), recipe, exams_of(services, session.recipe).read)
        for event in services.worker.ask(asked):
            if isinstance(event, Health):
                keep(services.health, digest, event)
    except UserError:
        yield health.draw(page.board.health, None)
        raise
    latest = newest(services, session)
    yield draw_board(services, page, latest, services.looks.get(session.id, look))


def compare_tries(
    services: Services, page: Page, session: Session, turns: Turns, first: str, second: str
) -> Iterator[Updates]:
    """Two merges that were scored, side by side; nothing until both are chosen."""
    exam = exams_of(services, session.recipe).first
    found = {one.key: one for one in tried(session, exam)}
    if first in found and second in found:
        shown = compared_html(found[first], found[second], exam.asked.probes)
        yield {page.board.tried.compared: shown}


def why(services: Services, page: Page, session: Session, turns: Turns, event: gr.EventData) -> Iterator[Updates]:
    """Why a lost probe is lost; which one is the browser's word, so it is looked up."""
    look = services.looks.get(session.id)
    scored = board_of(services, look.digest) if look else None
    said = event._data if isinstance(event._data, dict) else {}
    asked = scored.exam.asked.probes if scored else ()
    probe = next((one for one in asked if one.id == str(said.get("why", ""))), None)
    if scored is None or probe is None:
        return
    refuse_missing(session.recipe)
    recipe, found = recipe_of(session), list[Without]()
    names = names_of(recipe)
    for one in services.worker.ask(Why(session.id, sources_of(session), recipe, names, scored.exam, probe.id)):
        found.append(one)
        yield {page.board.why: board.why_html(probe, found, True)}
    yield {page.board.why: board.why_html(probe, found, False)}
