"""What the visitor looks at: the tab in front, its pickers, the open matrix and who holds it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import gradio as gr

from merging.plots import MEASURES
from ui.conversation import Turns
from ui.live import Updates, card, draw, draw_rest, follow, follow_held, hold, settled
from ui.locking import taken_from
from ui.measured import is_missing, refuse_missing, with_measurement
from ui.page import Page
from ui.panels import map, method, spectra
from ui.services import Services, drawing, newest
from ui.session import Scope, Session, names_of, with_locks


def select_tab(services: Services, page: Page, tab: str, session: Session | None, turns: Turns) -> Iterator[Updates]:
    if session is not None and session.tab != tab:  # Gradio selects the first tab before the page has loaded
        yield from _show(services, page, session, turns, tab=tab)


def pick_measure(services: Services, page: Page, session: Session, turns: Turns, measure: str) -> Iterator[Updates]:
    """Output kept is measured first: where that is done it is named now, else its button appears."""
    if measure not in MEASURES:
        return
    after = replace(session, measure=measure)  # pyright: ignore
    named = with_measurement(after, services.home, anyway=True) if measure == "output" else after
    missing = measure == "output" and is_missing(named.recipe, anyway=True)
    button = {page.method.measure: gr.update(visible=missing or is_missing(after.recipe))}
    if missing or named.recipe == session.recipe:
        for updates in _show(services, page, session, turns, measure=measure):
            yield button | updates  # with what the page holds: a method chosen meanwhile is not overwritten
            button = {}
    else:
        yield button | hold(services, page, named)
        yield from follow_held(services, page, named, whole=True)
        yield from settled(services, page, named, turns)


def pick_pair(services: Services, page: Page, session: Session, turns: Turns, pair: int) -> Iterator[Updates]:
    yield from _show(services, page, session, turns, pair=int(pair or 0))


def pick_view(
    services: Services, page: Page, session: Session, turns: Turns, quantity: str, row: str, first: int
) -> Iterator[Updates]:
    """The pickers of Spectra."""
    if quantity in spectra.QUANTITIES and row in spectra.ROWS:
        yield from _show(services, page, session, turns, quantity=quantity, row=row, first=int(first or 0))


def open_cell(services: Services, page: Page, session: Session, turns: Turns, event: gr.EventData) -> Iterator[Updates]:
    """A cell was clicked in any picture."""
    look = services.looks.get(session.id)
    matrix = map.clicked(look, event._data) if look else None
    if matrix:
        yield from _show(services, page, session, turns, focus=matrix.name)


def pick_matrix(
    services: Services, page: Page, session: Session, turns: Turns, layer: str, kind: str
) -> Iterator[Updates]:
    """The same by keyboard."""
    look = services.looks.get(session.id)
    matrix = look.family.at(int(layer), kind) if look and str(layer).isdecimal() else None
    if matrix:
        yield from _show(services, page, session, turns, focus=matrix.name)


def pick_scope(services: Services, page: Page, session: Session, turns: Turns, scope: str) -> Iterator[Updates]:
    if scope in get_args(Scope):
        yield from _show(services, page, session, turns, scope=scope)


def take_from(services: Services, page: Page, session: Session, turns: Turns, source: str) -> Iterator[Updates]:
    """The open matrix, or those around it, from the merge, the base or an expert."""
    look = services.looks.get(session.id)
    models = {map.MERGE: None, "base": "base"}
    models |= {name: e.model for name, e in zip(names_of(session.recipe), session.recipe.experts, strict=True)}
    if look and source in models:
        matrix = map.opened(look, session)
        locks = taken_from(session.recipe, look.family, matrix, session.scope, models[source])
        after = replace(with_locks(session, locks), focus=matrix.name)
        yield {
            **hold(services, page, after),
            **card(page, after),
            page.map.fitted: "",
            page.method.preset: method.preset_of(after.recipe, services.presets),
        }
        yield from follow_held(services, page, after)


def open_tables(services: Services, page: Page, is_open: bool, session: Session, turns: Turns) -> Iterator[Updates]:
    """A twin was opened or closed."""
    session = replace(session, tables=session.tables | {session.tab} if is_open else session.tables - {session.tab})
    look = services.looks.get(session.id)
    yield hold(services, page, session) | (draw_rest(services, page, session, turns, look) if look and is_open else {})


def _show(services: Services, page: Page, session: Session, turns: Turns, **eyes: Any) -> Iterator[Updates]:
    """What is in front when the visitor's eyes have moved, from the pictures at hand; from the worker where there are
    none."""
    with drawing(services, session):
        session = replace(newest(services, session), **eyes)
        updates = hold(services, page, session)
        look = services.looks.get(session.id)
        first = look is not None and not look.views and session.measure != "output"  # the others are on their way
        there = look if look and (session.tab != "map" or session.measure in look.conflicts or first) else None
        if there:
            updates |= draw(services, page, session, there, None) | draw_rest(services, page, session, turns, there)
    yield updates
    if there:
        refuse_missing(session.recipe)  # its problem stays: the pictures are of the merge before
    else:
        yield from follow(services, page, newest(services, session), whole=True)
        yield from settled(services, page, newest(services, session), turns)
