"""A search on the page: our own command line as a long job; its tries lead back to the desk."""

from collections.abc import Iterator

import gradio as gr

from eval.searching.aims import AIMS
from eval.searching.samplers import SAMPLERS
from merging.errors import UserError
from merging.plan import make_plan
from ui.conversation import Turns
from ui.desk import apply_recipe
from ui.history import again
from ui.live import Updates
from ui.long import start_job
from ui.measured import refuse_missing
from ui.page import Page
from ui.panels.search import MOST_TRIES, clicked
from ui.services import Services, exams_of
from ui.session import Session, names_of, recipe_of


def start(
    services: Services, page: Page, session: Session, turns: Turns, sampler: str, aim: str,
    trials: float | None, minutes: float | None,
) -> Iterator[Updates]:  # fmt: skip
    """Search around the recipe on the desk. One that was stopped goes on: its scores are kept."""
    if sampler not in SAMPLERS or aim not in AIMS or not (trials or minutes):
        raise UserError("E_SEARCH", "A search needs a number of tries, or of minutes.", do="Fill in one of them.")
    if (trials and not 1 <= trials <= MOST_TRIES) or (minutes and minutes < 0):
        raise UserError("E_SEARCH", f"A search makes 1 to {MOST_TRIES} tries, in some time.")
    refuse_missing(session.recipe)
    recipe = recipe_of(session)
    budget = [*(("--trials", str(int(trials))) if trials else ()), *(("--minutes", str(minutes)) if minutes else ())]
    command = ("-m", "eval", "search", "recipe.yml", "best.yml", "--sampler", sampler, "--aim", aim, *budget,
               "--probes", exams_of(services, session.recipe).full.probes, "--json")  # fmt: skip
    about = {"digest": make_plan(recipe).digest, "sampler": sampler, "experts": list(names_of(recipe))}
    yield from start_job(services, page, session, turns, "search", about, [command])


def click(services: Services, page: Page, session: Session, turns: Turns, event: gr.EventData) -> Iterator[Updates]:
    """A dot of the picture."""
    yield from load(services, page, session, turns, clicked(event._data))


def load(services: Services, page: Page, session: Session, turns: Turns, number: int | None) -> Iterator[Updates]:
    """The settings of a try come onto the desk."""
    found = services.searches.get(session.owner)
    if found and number is not None and (text := found.recipe(number)):
        yield {page.search.load: None}  # or it would load once more when its list is left
        yield from apply_recipe(services, page, session, turns, again(session, text))
