"""Fitting to what the experts put out, or to the answers that they wrote: the sliders jump there."""

import json
from collections.abc import Generator, Iterator
from dataclasses import replace

import gradio as gr

from eval.worker import FitOutputs
from merging.errors import UserError
from merging.fit import Fit, What, told
from merging.plan import make_plan
from ui.conversation import Turns
from ui.desk import apply_recipe, show_recipe
from ui.history import again
from ui.live import Updates, settled, sources_of
from ui.long import start_job
from ui.measured import is_missing, with_measurement
from ui.page import Page
from ui.services import Services, newest
from ui.session import Session, recipe_of, with_recipe


def fit(services: Services, page: Page, what: What, session: Session, turns: Turns) -> Iterator[Updates]:
    """One step of undo; the desk stays as it is where nothing is nearer."""
    named = yield from _measured(services, page, session)
    found = next(iter(services.worker.ask(FitOutputs(named.id, sources_of(named), recipe_of(named), what))))
    assert isinstance(found, Fit)
    if newest(services, session).recipe != session.recipe:
        return  # the desk has moved on meanwhile
    after = with_fit(named, found) if found.steps else session
    yield from show_recipe(services, page, session, after, turns)
    if newest(services, session).recipe == after.recipe:
        yield {page.map.fitted: told(found)}


def fit_safety(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """A long job: the settings that find the experts' own answers and the safest one's refusals likeliest."""
    named = yield from _measured(services, page, session)
    yield from start_job(services, page, named, turns, "safest", {"digest": make_plan(recipe_of(session)).digest},
                         [("-m", "eval", "safest", "recipe.yml", "best.yml", "--json")])  # fmt: skip
    yield from take_safest(services, page, session, turns)


def take_safest(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """The settings that the last fit for safety found come to the desk once, also after a reload, where it is still as
    it was then."""
    job, session = services.current.get(session.owner), newest(services, session)
    if job is None or job.kind != "safest" or services.jobs.is_running(job):
        return
    best = services.jobs.folder(job.id) / "best.yml"
    if best.is_file() and make_plan(recipe_of(session)).digest == json.loads(job.about)["digest"]:
        found = again(with_measurement(session, services.home, anyway=True), best.read_text(encoding="utf-8"))
        best.unlink()
        for updates in apply_recipe(services, page, session, turns, found):
            yield {part: now for part, now in updates.items() if part is not page.map.fitted}  # says how it was found
        yield from settled(services, page, newest(services, session), turns)


def _measured(services: Services, page: Page, session: Session) -> Generator[Updates, None, Session]:
    """The session with its measurement; raises UserError where that is still to be made."""
    named = with_measurement(session, services.home, anyway=True)
    if is_missing(named.recipe, anyway=True):
        yield {page.method.measure: gr.update(visible=True)}
        raise UserError(
            "E_CALIBRATION",
            "What the experts put out is not measured yet.",
            kept="Your merge is as it was.",
            do="Press Measure the experts, then fit.",
        )
    return named


def with_fit(session: Session, found: Fit) -> Session:
    """Experts that the method leaves out stay on the desk as they are."""
    fitted = {expert.model: expert for expert in found.recipe.experts}
    experts = tuple(fitted.get(expert.model, expert) for expert in session.recipe.experts)
    return with_recipe(session, replace(found.recipe, experts=experts, stages=session.recipe.stages,
                                        locks=session.recipe.locks))  # fmt: skip
