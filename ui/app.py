"""The page: which event calls what. What stands where is in `layout.py`."""

from functools import partial, wraps
from pathlib import Path
from typing import Any, get_type_hints

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from ui import api, ballots, checks, desk, family, fitting, live, long, looking, measuring, searching, talk
from ui.blocks import Blocks
from ui.figure import serve_pictures
from ui.layout import lay_out
from ui.page import Page
from ui.problem import shows_problems
from ui.services import Services, newest
from ui.session import Session
from ui.theme import Theme

_ASSETS = Path(__file__).resolve().parent.parent / "assets"
# No component shows progress: Gradio would copy the whole of each one that does, six times in every move.
_QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
# A move waits for nothing but the worker: neither chat nor scoring share its limit.
_MOVING: dict[str, Any] = {**_QUIET, "trigger_mode": "always_last", "concurrency_limit": 16, "concurrency_id": "moves"}
_JOBS: dict[str, Any] = {"concurrency_limit": 8, "concurrency_id": "jobs"}


def launch_kwargs(services: Services) -> dict[str, Any]:
    """What launch() needs besides address and port: the same for app.py, tests and Spaces."""
    return {
        "allowed_paths": [str(services.jobs.root)],  # finished merges; their folders' names are 128 random bits
        "theme": Theme(),
        "css_paths": [_ASSETS / "theme.css"],
        "app_kwargs": {"middleware": [Middleware(GZipMiddleware, compresslevel=6)]},  # 1.9 MB of page and plotly.js
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "show_error": True,
        "_frontend": False,  # or it asks itself for the page, and ends where a busy machine takes 3 seconds to answer
    }


def build_app(services: Services) -> gr.Blocks:
    serve_pictures()
    with Blocks(title="Mergescope", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as demo:
        tabs: dict[str, gr.Tab] = {}
        page = lay_out(services, tabs)
        bind = partial(_bind, services, page)
        _wire_desk(services, page)
        _wire_pictures(services, page, tabs)
        _wire_chat(services, page)
        api.publish(services)
        jobs = _wire_long(services, page)
        _wire_checks(services, page)
        _wire_models(services, page)
        loaded = demo.load(bind(desk.start), [page.browser], _all(page), **_QUIET)
        loaded.then(**_settle(services, page))
        attached = loaded.then(bind(long.attach), **jobs)
        # Nothing settles after it where it took nothing: that would redraw a recipe that is being typed.
        took = {"inputs": [page.session, page.turns], "outputs": {*_all(page), *page.settled}, **_QUIET}
        attached.then(bind(fitting.take_safest), **took).then(bind(measuring.take_measured), **took)
    demo.queue(default_concurrency_limit=8, max_size=200, api_open=True)
    return demo


def _wire_desk(services: Services, page: Page) -> None:
    """Recipe column: knobs, method, preset, undo.

    `input` of a Dropdown fires also when it is left unchanged, as by Tab: what it calls does nothing then.
    """
    bind = partial(_bind, services, page)
    state = [page.session, page.turns]
    then = _settle(services, page)
    columns = page.controls.columns
    moving = {**_MOVING, "outputs": [*page.moving, page.problem, page.method.measure, page.method.more]}
    gr.on([column.input for column in columns], bind(live.move), [page.session, *columns], **moving).then(**then)
    moving["outputs"] = [*moving["outputs"], page.controls.knobs, page.method.roll, *page.map.fit.values()]
    named = [page.session, page.method.method]
    page.method.method.input(bind(live.change_method), named, **moving).then(**then)
    wide = {**_MOVING, "outputs": _all(page)}
    gr.on([page.method.preset.input], bind(desk.take_preset), [*state, page.method.preset], **wide).then(**then)
    gr.on([page.undo.click], bind(desk.undo), state, **wide).then(**then)
    page.method.roll.click(bind(desk.roll), state, **wide).then(**then)
    page.problem.select(bind(desk.mend), state, **wide).then(**then)
    for what, button in page.map.fit.items():
        button.click(
            bind(fitting.fit, what),
            state,
            **{**wide, "concurrency_id": "fits", "concurrency_limit": 4},
        ).then(**then)


def _wire_models(services: Services, page: Page) -> None:
    """The family: typed, found on the Hub, checked, mended, downloaded, opened."""
    bind = partial(_bind, services, page)
    state = [page.session, page.turns]
    typed = [*state, page.models.base, page.models.experts, page.passports.token]
    wide = {**_MOVING, "outputs": {*_all(page, page.models.problem), *page.long}}
    here = shows_problems(page.passports.problem, typed=page.typed)
    own = page.models.problem
    then = _settle(services, page)
    picked = [*state, page.models.family]
    page.models.family.input(bind(family.pick_family, place=own), picked, **wide).then(**then)
    page.models.open.click(bind(family.open_family, place=own), typed, **wide).then(**then)
    for problem in (page.models.problem, page.passports.problem):
        problem.select(bind(family.mend_family, place=own), typed, **wide).then(**then)
    page.passports.download.click(bind(family.download, place=own), typed, **wide | _JOBS).then(**then)
    found = {**_QUIET, "outputs": [page.passports.found, page.passports.problem], "trigger_mode": "always_last"}
    words = [page.passports.search, page.passports.token]
    page.passports.search.input(here(partial(family.find, page)), words, **found)
    boxes = {**_QUIET, "outputs": [page.models.base, page.models.experts, page.models.family, page.models.own,
                                   page.passports.problem]}  # fmt: skip
    page.passports.found.select(here(partial(family.take, page)), page.models.experts, **boxes)


def _wire_pictures(services: Services, page: Page, tabs: dict[str, gr.Tab]) -> None:
    """Tabs, measure, cells and their keyboard twins; the recipe as a file."""
    bind = partial(_bind, services, page)
    state = [page.session, page.turns]
    looks = {**_MOVING, "outputs": [*page.pictures, page.browser, page.problem]}
    for name, tab in tabs.items():
        tab.select(bind(looking.select_tab, name), state, **looks)
    shown = {**looks, "outputs": [*looks["outputs"], page.method.measure]}
    page.map.measure.input(bind(looking.pick_measure), [*state, page.map.measure], **shown)
    tables = {**_MOVING, "outputs": [page.session, *page.settled, page.problem]}
    for twin in (page.map.twin, page.spectra.twin):
        for opened, event in ((True, twin.expand), (False, twin.collapse)):
            event(bind(looking.open_tables, opened), state, **tables)
    views = [page.spectra.quantity, page.spectra.row, page.spectra.first]
    gr.on([picker.input for picker in views], bind(looking.pick_view), [*state, *views], **looks)
    page.map.pair.input(bind(looking.pick_pair), [*state, page.map.pair], **looks)
    figures = [*page.map.maps, page.map.gate, page.spectra.sheet, *page.spectra.maps]
    gr.on([figure.select for figure in figures], bind(looking.open_cell), state, **looks)
    pickers = [page.map.layer, page.map.kind]
    gr.on([p.input for p in pickers], bind(looking.pick_matrix), [*state, *pickers], **looks)
    page.map.scope.input(bind(looking.pick_scope), [*state, page.map.scope], **looks)
    locks = {**looks, "outputs": [*page.pictures, page.method.preset, page.method.card, page.problem]}
    taken = page.map.source.input(bind(looking.take_from), [*state, page.map.source], **locks)
    taken.then(**_settle(services, page))
    file = page.recipe.problem
    # Nothing follows these two with `.then`: after a problem the text must stay as it was typed.
    wide = {**_MOVING, "outputs": {*_all(page, page.recipe.problem), *page.settled}}
    page.recipe.apply.click(bind(desk.apply_yaml, place=file), [*state, page.recipe.yaml], **wide)
    page.recipe.problem.select(bind(desk.mend_yaml, place=file), [*state, page.recipe.yaml], **wide)
    page.recipe.upload.upload(bind(desk.open_file, place=file), [*state, page.recipe.upload], **wide)


def _wire_chat(services: Services, page: Page) -> None:
    """Questions: Enter, the button, a chip, `ask again`; Stop in the button's place."""
    bind = partial(_bind, services, page)
    place = page.chat.problem
    inputs = {page.session, page.turns, page.chat.question, *page.chat.settings}
    asks: dict[str, Any] = {
        **_QUIET, "inputs": inputs, "outputs": [*page.answers, page.chat.problem],
        "concurrency_limit": 4, "concurrency_id": "questions",
    }  # fmt: skip
    gr.on([page.chat.question.submit, page.chat.ask.click], bind(talk.ask, place=place), **asks)
    gr.on([page.chat.chips.select, page.chat.answers.select], bind(talk.take, place=place), **asks)
    drafter, second, by, threshold, _ = page.chat.pair
    rows = [page.chat.route_by, page.chat.mixing_row, page.chat.pair_row, drafter, second, threshold]
    chosen = [page.session, page.chat.beside, drafter, second, by]
    gr.on([page.chat.beside.change, by.change], partial(talk.choose, page), chosen, rows, **_QUIET)
    plain = {**_QUIET, "inputs": page.session, "outputs": [*page.answers, page.chat.problem]}
    page.chat.stop.click(bind(talk.stop, place=place), **plain)
    page.chat.clear.click(bind(talk.clear, place=place), **plain)


def _wire_long(services: Services, page: Page) -> dict[str, Any]:
    """Scoring, measuring, saving and their Stop; returns how a handler that follows a job is wired."""
    bind = partial(_bind, services, page)
    state = [page.session, page.turns]
    jobs = {**_QUIET, "inputs": state, "outputs": [*page.long, page.problem], **_JOBS}
    pressed = {**jobs, "inputs": [*state, *page.controls.columns]}
    page.board.score.click(bind(live.as_seen(long.score_first)), **pressed)
    page.board.more.click(bind(live.as_seen(long.score_more)), **pressed)
    page.board.apart.score.click(bind(live.as_seen(long.score_apart)), **pressed)
    then = _settle(services, page)
    measured = {**jobs, "outputs": {*_all(page), *page.long}}
    page.method.measure_now.click(bind(measuring.measure), **measured).then(**then)
    page.method.more.click(bind(measuring.measure_more), **measured).then(**then)
    given = {**measured, "inputs": [*state, page.method.texts]}
    page.method.texts.upload(bind(measuring.measure_by), **given).then(**then)
    page.map.safest.click(bind(fitting.fit_safety), **measured).then(**then)
    gr.on([page.save.click, page.recipe.save.click], bind(live.as_seen(long.save)), **pressed)
    sent = [*state, page.recipe.repo, page.recipe.private, page.recipe.token]
    page.recipe.send.click(bind(long.push), **{**jobs, "inputs": sent})
    page.status.stop.click(partial(long.stop, services, page), page.session, [page.status.stop], **_QUIET)
    _wire_search(services, page, jobs)
    return jobs


def _wire_search(services: Services, page: Page, jobs: dict[str, Any]) -> None:
    """A search, and the way back to what it or the visitor has tried."""
    bind = partial(_bind, services, page)
    state = [page.session, page.turns]
    wide, then = {**_MOVING, "outputs": _all(page)}, _settle(services, page)
    form = page.search
    asked = [*state, form.sampler, form.aim, form.trials, form.minutes, *page.controls.columns]
    form.start.click(bind(live.as_seen(searching.start)), **{**jobs, "inputs": asked})
    form.picture.select(bind(searching.click), state, **wide).then(**then)
    form.load.input(bind(searching.load), [*state, form.load], **wide).then(**then)
    tried = page.board.tried
    tried.load.input(bind(desk.take_try), [*state, tried.load], **wide).then(**then)
    tried.trade.select(bind(desk.click_try), state, **wide).then(**then)
    two = {**_QUIET, "outputs": [tried.compared, page.problem]}
    for pick in (tried.first, tried.second):
        pick.input(bind(checks.compare_tries), [*state, tried.first, tried.second], **two)


def _wire_checks(services: Services, page: Page) -> None:
    """What Board asks the models themselves: health, why an answer was lost, and the visitor's votes."""
    bind = partial(_bind, services, page)
    state = [page.session, page.turns]
    asks = {**_QUIET, "concurrency_limit": 4, "concurrency_id": "questions"}
    page.board.health.check.click(bind(checks.examine), state, outputs=_all(page), **asks)
    why = [page.board.why, page.problem]
    page.board.lost.select(bind(checks.why), state, outputs=why, **asks)
    votes = page.board.votes
    ballot = {**asks, "outputs": [*votes.outputs, page.problem]}
    votes.ask.click(bind(ballots.ask_two), [*state, votes.question], **ballot)
    for result, button in votes.buttons.items():
        button.click(bind(ballots.vote, result), state, **ballot)


def _bind(
    services: Services, page: Page, handler: Any, *fixed: Any, place: gr.HTML | None = None, clears: bool = True
) -> Any:
    """What an event calls: `handler(services, page, *fixed, *inputs)`, where a session among the inputs is taken in its
    newest form. Problems are shown in `place`."""

    def begin(*said: Any) -> Any:
        said = tuple(newest(services, one) if isinstance(one, Session) else one for one in said)
        return handler(services, page, *fixed, *said)

    begin = wraps(partial(handler, services, page, *fixed))(begin)
    begin.__annotations__ = get_type_hints(handler)
    return shows_problems(place or page.problem, clears=clears, typed=page.typed)(begin)


def _settle(services: Services, page: Page) -> dict[str, Any]:
    """What every move ends with, for `.then`: what may wait, the merged weights, the browser's memory of the recipe."""
    return {
        **_QUIET,
        "fn": _bind(services, page, live.settled, clears=False),
        "inputs": [page.session, page.turns],
        "outputs": [*page.settled, page.problem],
    }


def _all(page: Page, *more: Any) -> list[Any]:
    return list({*page.pictures, *page.desk, page.problem, *more})
