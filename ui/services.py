"""Things shared by all visitors, built once and passed in. What belongs to one visitor is keyed by session id."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from filecmp import cmp
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from eval.judging.probes import Exam
from eval.scoring.health import Health
from eval.scoring.runs import data_folder
from merging.look import Look
from merging.models import open_model
from merging.recipe import Recipe, load_recipe
from ui.found import Found
from ui.jobs import Job, Jobs, LiveWorker, Stream
from ui.panels.status import Busy
from ui.scores import STANDARD, TOWN, Exams, Scoreboard
from ui.session import Session

K = TypeVar("K")
_ROOT = Path(__file__).resolve().parent.parent
_MOST_VISITORS = 200  # pictures and open streams kept; the oldest go first


@dataclass(frozen=True)
class Ballot:
    """Two answers to one question, left and right. `models` are what votes are kept under: digest or fingerprint."""

    question: str
    names: tuple[str, str]
    models: tuple[str, str]
    answers: tuple[str, str]
    family: str


@dataclass(frozen=True)
class Services:
    folder: Path  # relative model folders on the page and in the API resolve here
    home: Path  # data folder: jobs, scores, exports
    worker: LiveWorker
    jobs: Jobs
    presets: Mapping[str, Recipe]
    town: Path  # the built-in family
    looks: dict[str, Look] = field(default_factory=dict)  # the last pictures, by session id
    moved: dict[str, Recipe] = field(default_factory=dict)  # what the last move of a knob made, by session id
    asked: dict[str, int] = field(default_factory=dict)  # number of the last move, by session id
    moves: dict[str, Stream] = field(default_factory=dict)  # what a move still has to say
    ready: dict[str, str] = field(default_factory=dict)  # digest whose merged weights Chat has
    sessions: dict[str, Session] = field(default_factory=dict)  # the newest, by session id: see `newest`
    drawn: dict[str, Recipe] = field(default_factory=dict)  # what the last pictures show, by session id
    texts: dict[str, str] = field(default_factory=dict)  # the recipe as the editor was sent it last, by session id
    busy: dict[str, Busy] = field(default_factory=dict)  # progress of a long job, by session id
    boards: dict[tuple[str, Exam], Scoreboard] = field(default_factory=dict)  # by digest
    ballots: dict[str, Ballot] = field(default_factory=dict)  # what is to be voted on, by session id
    searches: dict[str, Found] = field(default_factory=dict)  # the last search, by owner
    health: dict[str, Health] = field(default_factory=dict)  # by digest
    current: dict[str, Job] = field(default_factory=dict)  # the last long job, by owner
    saved: dict[str, str] = field(default_factory=dict)  # digest that was saved last, by owner
    exports: dict[str, Path] = field(default_factory=dict)  # the archive that was saved last, by owner
    offered: dict[str, Recipe] = field(default_factory=dict)  # typed or mended, not opened yet, by session id
    asks: dict[str, Stream] = field(default_factory=dict)  # a question being answered
    locks: tuple[Lock, ...] = field(default_factory=lambda: tuple(Lock() for _ in range(64)))  # see `drawing`


def open_services() -> Services:
    home = data_folder()
    worker = LiveWorker()
    worker.warm()
    return Services(Path.cwd(), home, worker, Jobs(home / "jobs"), _presets(), _ROOT / "assets" / "town")


def keep(store: dict[K, Any], key: K, value: Any) -> None:
    store.pop(key, None)
    store[key] = value
    while len(store) > _MOST_VISITORS:
        store.pop(next(iter(store)))


def drawing(services: Services, session: Session) -> Lock:
    """Who draws a page holds it from looking at what is newest until all is drawn: one handler after the other."""
    return services.locks[hash(session.id) % len(services.locks)]


def newest(services: Services, session: Session) -> Session:
    """What the page holds now. Gradio's own state may be older: a move that is still under way, or was overtaken, has
    not written it or writes it late."""
    return services.sessions.get(session.id, session)


def board_of(services: Services, digest: str) -> Scoreboard | None:
    """The scores of exactly this merge, from as many probes as it was asked."""
    found = (services.boards.get((digest, exam)) for exams in (TOWN, STANDARD) for exam in (exams.full, exams.first))
    return next((board for board in found if board), None)


def exams_of(services: Services, recipe: Recipe) -> Exams:
    """Town's probes for models with Town's words, which know no other world; the standard ones for all others."""
    words = "tokenizer.json"
    theirs = open_model(recipe.sources[0], recipe.folder).folder / words
    return TOWN if theirs.is_file() and cmp(theirs, services.town / "base" / words, shallow=False) else STANDARD


def town_sources(services: Services) -> tuple[str, tuple[str, ...]]:
    """Base and experts of the built-in family, as a recipe on the page writes them."""
    town = Path(os.path.relpath(services.town, services.folder))
    return str(town / "base"), tuple(str(town / name) for name in ("helpful", "honest", "harmless"))


def is_town(services: Services, recipe: Recipe) -> bool:
    return (recipe.base, tuple(expert.model for expert in recipe.experts)) == town_sources(services)


def _presets() -> dict[str, Recipe]:
    """In the order of their files' names; each is a recipe for Town that its method and numbers are taken from."""
    recipes = (load_recipe(path) for path in sorted((_ROOT / "assets" / "recipes").glob("*.yml")))
    return {recipe.name: recipe for recipe in recipes}
