"""The page, as a table of contents: what stands where, and which event calls what."""

from functools import partial, wraps
from pathlib import Path
from typing import Any, get_type_hints

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from merging.methods import METHODS
from ui import api, ballots, checks, controls, desk, family, fitting, live, long, looking, measuring, searching, talk
from ui.figure import serve_pictures
from ui.page import Page
from ui.panels import board, chat, compare, map, method, models, passports, recipe, search, spectra, status
from ui.pieces import static
from ui.problem import problem_place, shows_problems
from ui.services import Services, newest
from ui.session import Session, names_of
from ui.theme import Theme

_ASSETS = Path(__file__).resolve().parent.parent / "assets"
_TABS = ("Map", "Spectra", "Chat", "Board", "Search", "Recipe", "Models")
_PILL = (
    '<label class="pill"><input type="checkbox" id="knobs-open"><span class="shut">Knobs</span>'
    '<span class="opened">Done</span></label>'
)
_BRAND = '<h1 class="brand"><span class="logo"><i></i><i></i><i></i></span>Mergescope</h1>'


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
    with gr.Blocks(title="Mergescope", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as demo:
        tabs: dict[str, gr.Tab] = {}
        page = _layout(services, tabs)
        _wire_desk(services, page)
        _wire_pictures(services, page, tabs)
        _wire_chat(services, page)
        api.publish(services)
        jobs = _wire_long(services, page)
        _wire_models(services, page)
        loaded = demo.load(_live(services, page, desk.start), [page.browser], _all(page), **_QUIET)
        loaded.then(**_settle(services, page))
        attached = loaded.then(_live(services, page, long.attach), **jobs)
        # Nothing settles after it where it took nothing: that would redraw a recipe that is being typed.
        took = {"inputs": [page.session, page.turns], "outputs": {*_all(page), *page.settled}, **_QUIET}
        attached.then(_live(services, page, fitting.take_safest), **took).then(
            _live(services, page, measuring.take_measured), **took
        )
    demo.queue(default_concurrency_limit=8, max_size=200, api_open=True)
    return demo


def _layout(services: Services, tabs: dict[str, gr.Tab]) -> Page:
    first = desk.first_recipe(services)
    session, turns = gr.State(None), gr.State(())
    browser = gr.BrowserState(None, storage_key="mergescope", secret="mergescope")  # fixed: survives a server restart
    with gr.Row(elem_id="shell"):
        gr.HTML(_PILL, apply_default_css=False, js_on_load=(_ASSETS / "keys.js").read_text(encoding="utf-8"))
        with gr.Column(elem_id="recipe", scale=0, min_width=0):
            static(_BRAND)
            chosen_models = models.build()
            preset = method.build_preset(services.presets)
            weights = controls.build_weights(first)
            chosen = method.build(preset, first.method)
            knobs = controls.build_knobs(first)
            with gr.Row(elem_classes=["foot"]):
                undo = gr.Button("Undo", min_width=0)
                save = gr.Button("Save merge…", variant="primary", min_width=0)
        with gr.Column(elem_id="main", min_width=0):
            line = status.build()
            problem = problem_place()
            with gr.Tabs(elem_id="tabs") as all_tabs:
                built: dict[str, Any] = {}
                for title in _TABS:
                    with gr.Tab(title, id=title.lower(), elem_classes=["pane"]) as tabs[title.lower()]:
                        panel = _PANELS[title](names_of(first), METHODS[first.method].title)
                        built[_FIELDS.get(title, title.lower())] = panel
                with gr.Tab("Compare methods", id="compare", elem_classes=["pane"]) as tabs["compare"]:
                    compare.build()
    desk_ = controls.Controls(chosen.method, weights, knobs)
    return Page(session, turns, browser, line, problem, all_tabs, chosen_models, chosen, desk_, undo, save, **built)


_PANELS = {
    "Map": lambda experts, title: map.build(),
    "Spectra": lambda experts, title: spectra.build(),
    "Chat": chat.build,
    "Board": lambda experts, title: board.build(),
    "Search": lambda experts, title: search.build(),
    "Recipe": lambda experts, title: recipe.build(),
    "Models": lambda experts, title: passports.build(),
}
_FIELDS = {"Models": "passports"}  # of Page, where it is not the tab's title
# No component shows progress: Gradio would copy all of each one that does, at each of six messages a move.
_QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
# A move waits for nothing but the worker: neither chat nor scoring share its limit.
_MOVING: dict[str, Any] = {**_QUIET, "trigger_mode": "always_last", "concurrency_limit": 16, "concurrency_id": "moves"}


_JOBS: dict[str, Any] = {"concurrency_limit": 8, "concurrency_id": "jobs"}


def _wire_desk(services: Services, page: Page) -> None:
    """Recipe column: every control, preset, undo, family.

    `input` of a Dropdown fires also when it is left unchanged, as by Tab: what it calls does nothing then.
    """
    state = [page.session, page.turns]
    then = _settle(services, page)
    columns = [page.controls.weights, page.controls.knobs]
    moving = {**_MOVING, "outputs": [*page.moving, page.problem, page.method.measure, page.method.more]}
    gr.on(
        [column.input for column in columns], _live(services, page, live.move), [page.session, *columns], **moving
    ).then(**then)
    moving["outputs"] += [page.controls.knobs, page.method.roll]
    named = [page.session, page.method.method]
    page.method.method.input(_live(services, page, live.change_method), named, **moving).then(**then)
    wide = {**_MOVING, "outputs": _all(page)}
    gr.on(
        [page.method.preset.input], _live(services, page, desk.take_preset), [*state, page.method.preset], **wide
    ).then(**then)
    gr.on([page.undo.click], _live(services, page, desk.undo), state, **wide).then(**then)
    page.method.roll.click(_live(services, page, desk.roll), state, **wide).then(**then)
    page.problem.select(_live(services, page, desk.mend), state, **wide).then(**then)
    for what, button in page.map.fit.items():
        button.click(
            _live(services, page, fitting.fit, what),
            state,
            **{**wide, "concurrency_id": "fits", "concurrency_limit": 4},
        ).then(**then)


def _wire_models(services: Services, page: Page) -> None:
    """The family: typed, found on the Hub, checked, mended, downloaded, opened."""
    state = [page.session, page.turns]
    typed = [*state, page.models.base, page.models.experts, page.passports.token]
    wide = {**_MOVING, "outputs": [*_all(page, page.models.problem), *page.long]}
    here = shows_problems(page.passports.problem, typed=page.typed)
    own = page.models.problem
    then = _settle(services, page)
    picked = [*state, page.models.family]
    page.models.family.input(_live(services, page, family.pick_family, place=own), picked, **wide).then(**then)
    page.models.open.click(_live(services, page, family.open_family, place=own), typed, **wide).then(**then)
    for problem in (page.models.problem, page.passports.problem):
        problem.select(_live(services, page, family.mend_family, place=own), typed, **wide).then(**then)
    page.passports.download.click(_live(services, page, family.download, place=own), typed, **wide | _JOBS).then(**then)
    found = {**_QUIET, "outputs": [page.passports.found, page.passports.problem], "trigger_mode": "always_last"}
    words = [page.passports.search, page.passports.token]
    page.passports.search.input(here(partial(family.find, page)), words, **found)
    boxes = {**_QUIET, "outputs": [page.models.base, page.models.experts, page.models.family, page.models.own,
                                   page.passports.problem]}  # fmt: skip
    page.passports.found.select(here(partial(family.take, page)), page.models.experts, **boxes)


def _wire_pictures(services: Services, page: Page, tabs: dict[str, gr.Tab]) -> None:
    """Tabs, measure, cells and their keyboard twins; the recipe as a file."""
    state = [page.session, page.turns]
    looks = {**_MOVING, "outputs": [*page.pictures, page.browser, page.problem]}
    for name, tab in tabs.items():
        tab.select(_live(services, page, looking.select_tab, name), state, **looks)
    shown = {**looks, "outputs": [*looks["outputs"], page.method.measure]}
    page.map.measure.input(_live(services, page, looking.pick_measure), [*state, page.map.measure], **shown)
    tables = {**_MOVING, "outputs": [page.session, *page.settled, page.problem]}
    for twin in (page.map.twin, page.spectra.twin):
        for opened, event in ((True, twin.expand), (False, twin.collapse)):
            event(_live(services, page, looking.open_tables, opened), state, **tables)
    views = [page.spectra.quantity, page.spectra.row, page.spectra.first]
    gr.on([picker.input for picker in views], _live(services, page, looking.pick_view), [*state, *views], **looks)
    page.map.pair.input(_live(services, page, looking.pick_pair), [*state, page.map.pair], **looks)
    figures = [*page.map.maps, page.map.gate, page.spectra.sheet, *page.spectra.maps]
    gr.on([figure.select for figure in figures], _live(services, page, looking.open_cell), state, **looks)
    pickers = [page.map.layer, page.map.kind]
    gr.on([p.input for p in pickers], _live(services, page, looking.pick_matrix), [*state, *pickers], **looks)
    page.map.scope.input(_live(services, page, looking.pick_scope), [*state, page.map.scope], **looks)
    locks = {**looks, "outputs": [*page.pictures, page.method.preset, page.method.card, page.problem]}
    taken = page.map.source.input(_live(services, page, looking.take_from), [*state, page.map.source], **locks)
    taken.then(**_settle(services, page))
    file = page.recipe.problem
    # Nothing follows these two with `.then`: after a problem the text must stay as it was typed.
    wide = {**_MOVING, "outputs": {*_all(page, page.recipe.problem), *page.settled}}
    page.recipe.apply.click(_live(services, page, desk.apply_yaml, place=file), [*state, page.recipe.yaml], **wide)
    page.recipe.problem.select(_live(services, page, desk.mend_yaml, place=file), [*state, page.recipe.yaml], **wide)
    page.recipe.upload.upload(_live(services, page, desk.open_file, place=file), [*state, page.recipe.upload], **wide)


def _wire_chat(services: Services, page: Page) -> None:
    """Questions: Enter, the button, a chip, `ask again`; Stop in the button's place."""
    place = page.chat.problem
    inputs = {page.session, page.turns, page.chat.question, *page.chat.settings}
    asks: dict[str, Any] = {
        **_QUIET, "inputs": inputs, "outputs": [*page.answers, page.chat.problem],
        "concurrency_limit": 4, "concurrency_id": "questions",
    }  # fmt: skip
    gr.on([page.chat.question.submit, page.chat.ask.click], _live(services, page, talk.ask, place=place), **asks)
    gr.on([page.chat.chips.select, page.chat.answers.select], _live(services, page, talk.take, place=place), **asks)
    drafter, second, by, threshold, _ = page.chat.pair
    rows = [page.chat.route_by, page.chat.mixing_row, page.chat.pair_row, drafter, second, threshold]
    chosen = [page.session, page.chat.beside, drafter, second, by]
    gr.on([page.chat.beside.change, by.change], partial(talk.choose, page), chosen, rows, **_QUIET)
    plain = {**_QUIET, "inputs": page.session, "outputs": [*page.answers, page.chat.problem]}
    page.chat.stop.click(_live(services, page, talk.stop, place=place), **plain)
    page.chat.clear.click(_live(services, page, talk.clear, place=place), **plain)


def _wire_long(services: Services, page: Page) -> dict[str, Any]:
    """Scoring, saving and their Stop; returns how a handler that follows a job is wired."""
    state = [page.session, page.turns]
    jobs: dict[str, Any] = {
        **_QUIET,
        "inputs": state,
        "outputs": [*page.long, page.problem],
        **_JOBS,
    }
    page.board.score.click(_live(services, page, long.score_first), **jobs)
    page.board.more.click(_live(services, page, long.score_more), **jobs)
    page.board.apart.score.click(_live(services, page, long.score_apart), **jobs)
    back, wide = page.board.tried, {**_MOVING, "outputs": _all(page)}
    then = _settle(services, page)
    back.load.input(_live(services, page, desk.take_try), [*state, back.load], **wide).then(**then)
    back.trade.select(_live(services, page, desk.click_try), state, **wide).then(**then)
    looked_for = page.search
    asked = [*state, looked_for.sampler, looked_for.aim, looked_for.trials, looked_for.minutes]
    looked_for.start.click(_live(services, page, searching.start), **{**jobs, "inputs": asked})
    looked_for.picture.select(_live(services, page, searching.click), state, **wide).then(**then)
    looked_for.load.input(_live(services, page, searching.load), [*state, looked_for.load], **wide).then(**then)
    two = {**_QUIET, "outputs": [back.compared, page.problem]}
    for pick in (back.first, back.second):
        pick.input(_live(services, page, checks.compare_tries), [*state, back.first, back.second], **two)
    looked = {**_QUIET, "concurrency_limit": 4, "concurrency_id": "questions", "outputs": [*_all(page)]}
    page.board.health.check.click(_live(services, page, checks.examine), state, **looked)
    page.board.lost.select(
        _live(services, page, checks.why), state, **{**looked, "outputs": [page.board.why, page.problem]}
    )
    ballot = {**looked, "outputs": [*page.board.votes.outputs, page.problem]}
    page.board.votes.ask.click(_live(services, page, ballots.ask_two), [*state, page.board.votes.question], **ballot)
    for result, button in page.board.votes.buttons.items():
        button.click(_live(services, page, ballots.vote, result), state, **ballot)
    measured = {**jobs, "outputs": [*_all(page), *page.long]}
    page.method.measure_now.click(_live(services, page, measuring.measure), **measured).then(**then)
    page.method.more.click(_live(services, page, measuring.measure_more), **measured).then(**then)
    given = {**measured, "inputs": [*state, page.method.texts]}
    page.method.texts.upload(_live(services, page, measuring.measure_by), **given).then(**then)
    page.map.safest.click(_live(services, page, fitting.fit_safety), **measured).then(**then)
    gr.on([page.save.click, page.recipe.save.click], _live(services, page, long.save), **jobs)
    sent = [*state, page.recipe.repo, page.recipe.private, page.recipe.token]
    page.recipe.send.click(_live(services, page, long.push), **{**jobs, "inputs": sent})
    page.status.stop.click(partial(long.stop, services, page), page.session, [page.status.stop], **_QUIET)
    return jobs


def _live(
    services: Services, page: Page, handler: Any, *fixed: Any, place: gr.HTML | None = None, clears: bool = True
) -> Any:
    """`handler` with the page's newest session; `place` is where its problems appear."""

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
        "fn": _live(services, page, live.settled, clears=False),
        "inputs": [page.session, page.turns],
        "outputs": [*page.settled, page.problem],
    }


def _all(page: Page, *more: Any) -> list[Any]:
    return [*page.pictures, *page.desk, page.problem, *more]
