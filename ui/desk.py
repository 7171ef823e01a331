"""Another recipe on the desk: a preset, an undo, a file, a family, a fresh page. The controls follow it."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from merging.errors import UserError
from merging.fixes import apply_fix, mend_text
from merging.methods import METHODS
from merging.plan import check, make_plan
from merging.recipe import Recipe, load_recipe, parse_recipe
from ui import controls
from ui.conversation import Turns
from ui.history import again, tried
from ui.live import Updates, card, follow, follow_held, hold, measure_button, settled
from ui.measured import is_missing, refuse_missing, with_measurement
from ui.page import Page
from ui.panels import map, method, models, passports
from ui.problem import fix_of
from ui.services import Services, exams_of, is_town, keep, newest, town_sources
from ui.session import Session, checked, fresh_recipe, looking, recipe_of, rolled, undone, with_recipe


def take_preset(services: Services, page: Page, session: Session, turns: Turns, name: str) -> Iterator[Updates]:
    if name in services.presets:
        after = with_recipe(session, method.apply_preset(session.recipe, services.presets[name]))
        yield from show_recipe(services, page, session, with_measurement(after, services.home), turns)


def undo(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    yield from show_recipe(services, page, session, undone(session), turns)


def roll(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """Another draw of a method that draws at random; each that is scored stays among the tries."""
    yield from show_recipe(services, page, session, rolled(session), turns)


def click_try(services: Services, page: Page, session: Session, turns: Turns, event: gr.EventData) -> Iterator[Updates]:
    """A dot of the trade-off; those of base and experts lead nowhere."""
    said = event._data if isinstance(event._data, dict) else {}
    yield from take_try(services, page, session, turns, str(said.get("customdata", "")))


def take_try(services: Services, page: Page, session: Session, turns: Turns, key: str) -> Iterator[Updates]:
    """Back to the settings of a merge that was scored."""
    one = next((one for one in tried(session, exams_of(services, session.recipe).first) if one.key == key), None)
    if one and one.digest != make_plan(recipe_of(session)).digest:
        yield from apply_recipe(services, page, session, turns, again(session, one.recipe))


def apply_yaml(services: Services, page: Page, session: Session, turns: Turns, text: str) -> Iterator[Updates]:
    yield from apply_recipe(services, page, session, turns, parse_recipe(text, services.folder))
    yield from settled(services, page, services.sessions[session.id], turns)


def open_file(services: Services, page: Page, session: Session, turns: Turns, path: str) -> Iterator[Updates]:
    yield from apply_recipe(services, page, session, turns, replace(load_recipe(Path(path)), folder=services.folder))
    yield from settled(services, page, services.sessions[session.id], turns)


def mend_yaml(services: Services, page: Page, session: Session, turns: Turns, text: str,
              event: gr.EventData) -> Iterator[Updates]:  # fmt: skip
    """The fix of a problem with the recipe's text."""
    mended = mend_text(text, fix_of(event))
    yield {page.recipe.yaml: mended}
    yield from apply_yaml(services, page, session, turns, mended)


def mend(services: Services, page: Page, session: Session, turns: Turns, event: gr.EventData) -> Iterator[Updates]:
    """The fix of a problem with the recipe on the desk."""
    after = with_recipe(session, apply_fix(session.recipe, fix_of(event)))
    yield from show_recipe(services, page, session, after, turns)


def apply_recipe(services: Services, page: Page, session: Session, turns: Turns, recipe_: Recipe) -> Iterator[Updates]:
    after = with_recipe(session, recipe_)
    make_plan(recipe_of(after))  # every problem at once, from the headers alone
    told = False
    while not told:
        before = newest(services, session)
        # The first update raises when recipe and models do not fit: the desk then stays as it is.
        for updates in follow(services, page, looking(after, before), whole=True):
            after = looking(after, newest(services, after))
            yield updates | ({} if told else {**_told(services, page, after, session), **hold(services, page, after)})
            told = True
        now = newest(services, session)
        if now is before or now.recipe != before.recipe:  # a move was faster, and no mere look elsewhere
            return


def show_recipe(services: Services, page: Page, session: Session, after: Session, turns: Turns) -> Iterator[Updates]:
    if after is not session:
        yield {**hold(services, page, after), **_told(services, page, after, session)}
        refuse_missing(after.recipe)
        yield from follow_held(services, page, after)


def _told(services: Services, page: Page, after: Session, before: Session | None) -> Updates:
    """Every control says what the recipe says."""
    built_in = is_town(services, after.recipe)
    town = models.TOWN if built_in else models.OWN
    other = before is None or after.recipe.sources != before.recipe.sources
    passed = after.tab == "models" and before is not None and other
    return {
        **(passports.draw(page.passports, recipe_of(after), check(recipe_of(after))) if passed else {}),
        **controls.show(page.controls, after.recipe),
        **card(page, after),
        **measure_button(services, page, after),
        page.method.roll: method.draw_roll(after.recipe),
        **map.draw_fits(page.map, METHODS[after.recipe.method]),
        page.map.fitted: "",
        page.method.preset: method.preset_of(after.recipe, services.presets),
        page.models.family: town,
        page.models.own: gr.update(visible=town == models.OWN),
        **(models.shown(page.models, after.recipe) if other and not built_in else {}),
    }


def first_recipe(services: Services) -> Recipe:
    """What the page opens on: the first preset on the built-in family."""
    base, experts = town_sources(services)
    preset = next(iter(services.presets.values()))
    return method.apply_preset(fresh_recipe(METHODS[preset.method], base, experts, services.folder), preset)


def start(services: Services, page: Page, stored: Any) -> Iterator[Updates]:
    """The page has loaded: the browser's last recipe, or the first one. Before one that waits for a measurement stands
    the first preset's picture of its models."""
    session = restored(services, stored)
    yield {**hold(services, page, session), **_told(services, page, session, None)}
    drawn = session
    if is_missing(session.recipe):
        first = method.apply_preset(session.recipe, next(iter(services.presets.values())))
        drawn = replace(session, recipe=replace(first, calibration=None))
    yield from follow(services, page, drawn, whole=True)
    refuse_missing(session.recipe)


def restored(services: Services, stored: Any) -> Session:
    """What the browser kept is its visitor's to change, so nothing in it is trusted. It hears of a move when all of it
    is done, which takes a large family minutes: what its page held last is newer, where this process still knows it.
    """
    fresh = Session(first_recipe(services), secrets.token_hex(16))
    if not isinstance(stored, dict):
        return fresh
    owner, text = str(stored.get("owner", "")), str(stored.get("recipe", ""))
    if re.fullmatch("[0-9a-f]{32}", owner):
        fresh = replace(fresh, owner=owner)
        if owner not in services.current and (job := services.jobs.find(str(stored.get("job", "")), owner)):
            keep(services.current, owner, job)
        held = [one.recipe for one in list(services.sessions.values()) if one.owner == owner]
        text = held[-1].to_yaml() if held else text
    try:
        found = replace(fresh, recipe=checked(parse_recipe(text, services.folder), None))
        problems = check(recipe_of(found)).problems
    except UserError:  # a recipe of an older version: the first one then, as where models have gone
        return fresh
    waits = is_missing(found.recipe)
    return fresh if any(one.code != "E_CALIBRATION" or not waits for one in problems) else found
