"""Measuring the experts as a long job, for methods that merge by what they read."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from eval.calibrating.texts import FOLDER, read_texts
from merging.errors import UserError
from merging.methods import METHODS
from ui.conversation import Turns
from ui.live import Updates, follow, hold, measure_button
from ui.long import start_job
from ui.measured import EACH, with_measurement
from ui.page import Page
from ui.services import Services, town_sources
from ui.session import Session


def measure(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """Let every expert answer prompts of its own skill, and measure what its matrices read; then merge."""
    _, town = town_sources(services)
    names = {expert.name for expert in session.recipe.beside_base}
    if not names <= {Path(expert).name for expert in town}:
        raise UserError(
            "E_TEXTS",
            "Only Town's experts have texts here.",
            do='Press “By texts of your own” and give a file of lines such as {"expert": "NAME", "messages": '
            f'[{{"role": "user", "content": "…"}}]}}; {FOLDER.name}/town.jsonl shows the form.',
        )
    yield from _measure(services, page, session, turns, None)


def measure_by(services: Services, page: Page, session: Session, turns: Turns, texts: str) -> Iterator[Updates]:
    """The same on the texts of a file, which may say the answers too."""
    read_texts(texts, [expert.name for expert in session.recipe.beside_base], EACH)  # its faults before a job starts
    yield from _measure(services, page, session, turns, Path(texts))


def _measure(services: Services, page: Page, session: Session, turns: Turns, texts: Path | None) -> Iterator[Updates]:
    session = with_measurement(session, services.home, anyway=True)
    out = Path(session.recipe.calibration or "")
    if texts:
        mark = hashlib.sha256(texts.read_bytes()).hexdigest()[:12]
        out = out.with_name(f"{out.name.partition('-')[0]}-{mark}")
        session = replace(session, recipe=replace(session.recipe, calibration=str(out)))
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        given = ("--texts", str(texts)) if texts else ()
        if METHODS[session.recipe.method].calibrated not in ("merged", "learned"):
            given += ("--base",)  # one measurement serves AIM and LEWIS too
        command = ("-m", "eval", "calibrate", "recipe.yml", str(out), "--each", str(EACH), *given, "--json")
        yield from start_job(services, page, session, turns, "measure", {}, [command])
    if out.exists():
        yield {**hold(services, page, session), **measure_button(page, session)}
        yield from follow(services, page, session, whole=True)
