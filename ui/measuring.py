"""Measuring the experts as a long job, for methods that merge by what they read."""

from collections.abc import Iterator
from pathlib import Path

from eval.calibrating.texts import FOLDER
from merging.errors import UserError
from ui.conversation import Turns
from ui.live import Updates, follow, hold, measure_button
from ui.long import start_job
from ui.measured import EACH, with_measurement
from ui.page import Page
from ui.services import Services, town_sources
from ui.session import Session


def measure(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """Let every expert answer prompts of its own skill, and measure what its matrices read; then merge."""
    session = with_measurement(session, services.home, anyway=True)
    _, town = town_sources(services)
    names = {expert.name for expert in session.recipe.beside_base}
    if not names <= {Path(expert).name for expert in town}:
        raise UserError(
            "E_TEXTS",
            "Only Town's experts have texts here.",
            do=f"Run `python -m eval calibrate RECIPE.yml FOLDER --texts FILE`, then write `calibration: FOLDER` in "
            f"Recipe; {FOLDER.name}/town.jsonl shows the form.",
        )
    out = Path(session.recipe.calibration or "")
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        command = ("-m", "eval", "calibrate", "recipe.yml", str(out), "--each", str(EACH), "--json")
        yield from start_job(services, page, session, turns, "measure", {}, [command])
    if out.exists():
        yield {**hold(services, page, session), **measure_button(page, session)}
        yield from follow(services, page, session, whole=True)
