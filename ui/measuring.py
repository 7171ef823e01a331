"""Measuring the experts as a long job, for methods that merge by what they read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from eval.calibrating.texts import FOLDER, read_for
from merging.errors import UserError
from merging.methods import METHODS
from merging.plan import members
from merging.stage import names_in
from ui.conversation import Turns
from ui.live import Updates, card, follow_held, hold, measure_button, settled
from ui.long import start_job
from ui.measured import STEPS, file_of, is_missing, measured_by, next_step, own_file, with_measurement
from ui.page import Page
from ui.services import Services, newest, town_sources
from ui.session import Session


def measure(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """Let every expert answer prompts of its own skill, and measure what its matrices read; then merge."""
    _, town = town_sources(services)
    names = {name for expert in members(session.recipe)[1:] for name in names_in(expert)}
    if not names <= {Path(expert).name for expert in town}:
        raise UserError(
            "E_TEXTS",
            "Only Town's experts have texts here.",
            do='Press “By texts of your own” and give a file of lines such as {"expert": "NAME", "messages": '
            f'[{{"role": "user", "content": "…"}}]}}; {FOLDER.name}/town.jsonl shows the form.',
        )
    yield from _measure(services, page, session, turns, None)


def measure_more(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """The same on more prompts, or more of the visitor's texts; until it is done the merge by the first ones stays."""
    texts, each = file_of(session.recipe, services.home), next_step(session.recipe, services.home)
    yield from _measure(services, page, session, turns, texts, each or STEPS[0])


def measure_by(services: Services, page: Page, session: Session, turns: Turns, texts: str) -> Iterator[Updates]:
    """The same on the texts of a file, which may say the answers too."""
    read_for(texts, members(session.recipe)[1:], STEPS[0])  # its faults before a job starts
    yield from _measure(services, page, session, turns, own_file(services.home, Path(texts)))


def _measure(
    services: Services, page: Page, session: Session, turns: Turns, texts: Path | None, each: int = STEPS[0]
) -> Iterator[Updates]:
    waits = is_missing(session.recipe)
    out = measured_by(session.recipe, services.home, texts, each)
    session = replace(session, recipe=replace(session.recipe, calibration=str(out)))
    if waits:
        yield hold(services, page, session)  # a reload meanwhile finds which measurement it waits for
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        given = ("--texts", str(texts)) if texts else ()
        if METHODS[session.recipe.method].calibrated not in ("merged", "learned"):
            given += ("--base",)  # one measurement serves AIM and LEWIS too
        command = ("-m", "eval", "calibrate", "recipe.yml", str(out), "--each", str(each), *given, "--json")
        yield from start_job(services, page, session, turns, "measure", {}, [command])
    after = newest(services, session)  # what moved meanwhile stays
    after = replace(after, recipe=replace(after.recipe, calibration=session.recipe.calibration))
    after = with_measurement(after, services.home, anyway=True)
    if not is_missing(after.recipe, anyway=True):
        yield from _merged(services, page, after)


def take_measured(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """After a reload: the merge that waited for a measurement, once that is there."""
    if services.drawn.get(session.id) != session.recipe and not is_missing(session.recipe):
        yield from _merged(services, page, session)
        yield from settled(services, page, newest(services, session), turns)


def _merged(services: Services, page: Page, session: Session) -> Iterator[Updates]:
    yield {**hold(services, page, session), **card(page, session), **measure_button(services, page, session)}
    yield from follow_held(services, page, session, whole=True)
