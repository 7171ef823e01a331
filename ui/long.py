"""Long jobs on the page: scoring and saving. They run in a subprocess; a reload finds them again by their id."""

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from eval.judging.probes import Exam
from eval.searching.safety import TRIALS, Losses, Safest, Trusted
from merging.errors import UserError
from merging.events import Reloaded
from merging.plan import make_plan
from merging.recipe import Recipe
from merging.sources import spelled_out
from ui.conversation import Turns
from ui.found import Found, with_event
from ui.jobs import Job
from ui.live import Updates, draw_board, draw_search, kept, status_line
from ui.measured import refuse_missing
from ui.page import Page
from ui.panels import apart
from ui.panels.recipe import file_name
from ui.panels.status import Busy
from ui.scores import Scoreboard, with_scored
from ui.services import Services, board_of, exams_of, keep, newest
from ui.session import Session, recipe_of
from ui.visitor import visitors_hub

_DOING = {
    "score": "Scoring",
    "save": "Saving",
    "download": "Downloading",
    "push": "Pushing",
    "measure": "Measuring",
    "search": "Searching",
    "safest": "Fitting",
}
_STOPPED = {
    "save": "Nothing was saved.",
    "download": "What is here is kept.",
    "push": "The repository is as it was.",
    "measure": "What is measured is kept.",
    "search": "All scores are kept: the same search goes on.",
    "safest": "Your merge is as it was.",
}


def score_first(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """A first look."""
    yield from _score(services, page, session, turns, exams_of(services, session.recipe).first)


def score_more(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """All probes, as reported elsewhere."""
    yield from _score(services, page, session, turns, exams_of(services, session.recipe).full)


def score_apart(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """Router and mixture of the same experts, on the probes that the merge was asked last."""
    refuse_missing(session.recipe)
    exams, board = exams_of(services, session.recipe), board_of(services, make_plan(recipe_of(session)).digest)
    asked = board.exam if board else exams.first
    yield from _score(services, page, session, turns, asked, *(f"--{name}" for name in apart.kinds(exams)))


def _score(services: Services, page: Page, session: Session, turns: Turns, exam: Exam, *more: str) -> Iterator[Updates]:
    refuse_missing(session.recipe)
    recipe = recipe_of(session)
    digest = make_plan(recipe).digest
    asked = ("--probes", exam.probes, "--split", exam.split)
    command = ("-m", "eval", "score", "recipe.yml", "--sources", *asked, *more, "--json")
    about = {"digest": digest, "exam": asdict(exam)}
    yield from start_job(services, page, session, turns, "score", about, [command])


def save(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """Write the merged model to the data folder and zip it for download."""
    refuse_missing(session.recipe)
    recipe = recipe_of(session)
    name = file_name(recipe)
    about = {"digest": make_plan(recipe).digest, "name": name}
    yield {page.tabs: gr.Tabs(selected="recipe")}
    command = ("-m", "eval", "export", "recipe.yml", name, "--json")
    yield from start_job(services, page, session, turns, "save", about, [command])


def push(services: Services, page: Page, session: Session, turns: Turns, repo: str, private: bool,
         token: str) -> Iterator[Updates]:  # fmt: skip
    """The merge that was saved last, from its archive to a repository of the visitor's."""
    archive = services.exports.get(session.owner)
    if archive is None or not archive.is_file():
        raise UserError("E_PUSH", "No merge has been saved yet.", kept="Nothing was sent.", do="Save it first.")
    owned = visitors_hub(token).token
    if not owned:
        raise UserError("E_TOKEN", "A push needs a token that may write.", kept="Nothing was sent.",
                        do="Make one at huggingface.co/settings/tokens and paste it.")  # fmt: skip
    send = ("-m", "merging", "push", archive.stem, (repo or "").strip(), "--json", *(() if private else ("--public",)))
    commands = [("-m", "zipfile", "-e", str(archive), "."), send]
    yield from start_job(services, page, session, turns, "push", {"name": archive.stem}, commands, owned)


def stop(services: Services, page: Page, session: Session) -> Updates:
    if job := services.current.get(session.owner):
        services.jobs.stop(job)
    return {page.status.stop: gr.update(value="Stopping…", interactive=False)}


def attach(services: Services, page: Page, session: Session, turns: Turns) -> Iterator[Updates]:
    """After a reload: the browser's last job, running or done."""
    if (archive := services.exports.get(session.owner)) and archive.is_file():
        yield _download(page, archive, [])
    if job := services.current.get(session.owner):
        yield from watch(services, page, session, turns, job)


def watch(services: Services, page: Page, session: Session, turns: Turns, job: Job) -> Iterator[Updates]:
    """Follow a job's log to its end; progress stands in the status line."""
    about = json.loads(job.about)
    found = Scoreboard(Exam(**about["exam"])) if "exam" in about else None
    finished, answered, said = False, dict[str, int](), list[str]()
    if job.kind == "search":
        keep(services.searches, session.owner, Found(about["sampler"], tuple(about["experts"])))
    try:
        keep(services.busy, session.id, Busy(_DOING[job.kind], "starting", 0.0))
        yield {
            **_status(services, page, session),
            page.status.stop: gr.update(visible=True, value="Stop", interactive=True),
        }
        for events in services.jobs.batches(job):
            if job.kind == "search":
                yield from _searched(services, page, session, events)
                continue
            for event in events:
                if event.get("event") == "asked":
                    answered[event["model"]] = event["done"]
                if found and event.get("event") == "scored":
                    found = with_scored(found, event)
                finished = finished or event.get("event") == "finished"
                said += _words(event)
            if busy := next(filter(None, map(_busy, reversed(events))), None):
                keep(services.busy, session.id, busy)
                yield _status(services, page, session)
        if found and found.scores and not services.jobs.stopped(job):
            keep(services.boards, (about["digest"], found.exam), found)
        if job.kind == "save" and finished:
            keep(services.busy, session.id, Busy("Zipping", about["name"], 1.0))
            yield _status(services, page, session)
            archive = zipped(services.jobs.folder(job.id) / about["name"])
            keep(services.exports, session.owner, archive)
            keep(services.saved, session.owner, about["digest"])
            yield _download(page, archive, said)
        if job.kind == "safest" and said:
            yield {page.map.fitted: " ".join(said)}
        if job.kind == "push" and said:
            yield {page.recipe.pushed: _listed(said)}
    except UserError:
        services.busy.pop(session.id, None)
        yield {**_status(services, page, session), page.status.stop: gr.update(visible=False)}
        raise
    finally:
        if job.kind == "push" and not services.jobs.is_running(job):  # unpacked for this push alone
            shutil.rmtree(services.jobs.folder(job.id) / about["name"], ignore_errors=True)
        services.busy.pop(session.id, None)
    if services.jobs.stopped(job):
        kept_so_far = f"{sum(answered.values())} answers kept." if job.kind == "score" else _STOPPED[job.kind]
        keep(services.busy, session.id, Busy("Stopped.", kept_so_far, 0.0, over=True))  # until the next move
    latest = newest(services, session)
    look = services.looks.get(session.id)
    updates = {**_status(services, page, session), page.status.stop: gr.update(visible=False)}
    if latest.tab == "search":
        updates |= draw_search(services, page, latest)
    if look and latest.tab == "board":
        updates |= draw_board(services, page, latest, look)
    yield updates


def _searched(
    services: Services, page: Page, session: Session, events: Sequence[Mapping[str, Any]]
) -> Iterator[Updates]:
    """Lines of a search's log: a try is a new dot."""
    found = reduce(with_event, events, services.searches[session.owner])
    keep(services.searches, session.owner, found)
    if any(event.get("event") != "asked" for event in events):
        keep(services.busy, session.id, found.busy())
        latest = newest(services, session)
        shown = draw_search(services, page, latest) if latest.tab == "search" else {}
        yield {**_status(services, page, session), **shown}


def zipped(folder: Path) -> Path:
    """The folder as a zip beside it; weights do not compress, so nothing is."""
    archive = folder.with_suffix(".zip")
    if not archive.exists():
        part = archive.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, Path(folder.name) / path.relative_to(folder))
        part.rename(archive)
        shutil.rmtree(folder)
    return archive


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """The recipe as a job reads it."""
    (folder / "recipe.yml").write_text(spelled_out(recipe).to_yaml(), encoding="utf-8")


def start_job(services: Services, page: Page, session: Session, turns: Turns, kind: str, about: Mapping[str, Any],
              commands: Sequence[tuple[str, ...]], token: str | None = None) -> Iterator[Updates]:  # fmt: skip
    """Start our own command lines as one job, and follow it to its end."""
    running = services.current.get(session.owner)
    if running and services.jobs.is_running(running):
        raise UserError("E_BUSY", "Another long job of yours is still running.", do="Wait for it, or stop it first.")
    job_id = services.jobs.new_id()
    write_recipe(recipe_of(session), services.jobs.folder(job_id))
    job = services.jobs.start(job_id, session.owner, kind, json.dumps(about), commands, token)
    keep(services.current, session.owner, job)
    latest = newest(services, session)
    gone = {page.recipe.download: gr.update(visible=False), page.recipe.push: gr.update(visible=False),
            page.recipe.saved: ""} if kind == "save" else {}  # fmt: skip
    yield {**gone, page.browser: kept(services, latest)}
    yield from watch(services, page, session, turns, job)


def _busy(event: Mapping[str, Any]) -> Busy | None:
    if event.get("event") == "asked":
        return Busy("Scoring", f"{event['model']}: {event['done']} of {event['total']} probes",
                    event["done"] / max(event["total"], 1), event["seconds_left"])  # fmt: skip
    if event.get("event") == "calibrating":
        return Busy("Measuring", f"{event['done']} of {event['total']} {event['step']}",
                    event["done"] / max(event["total"], 1), event["seconds_left"])  # fmt: skip
    if event.get("event") == "weighed":
        tried = (event["number"] or 0) + 1
        return Busy("Fitting", f"for safety: try {tried} of {TRIALS}", tried / TRIALS)
    if event.get("event") == "tensor_done":
        return Busy("Saving", f"{event['done']} of {event['total']} tensors",
                    event["done"] / max(event["total"], 1), event["seconds_left"])  # fmt: skip
    if event.get("event") == "downloading":
        done, total = event["done"] / 1e6, max(event["total"], 1) / 1e6
        return Busy("Downloading", f"{done:,.0f} of {total:,.0f} MB", done / total, event["seconds_left"])
    if event.get("event") == "uploading":
        return Busy("Pushing", event["file"], event["done"] / max(event["total"], 1), event["seconds_left"])
    return Busy("Testing", "loads the saved model and asks it", 1.0) if event.get("event") == "testing" else None


def _words(event: Mapping[str, Any]) -> list[str]:
    """What a job says of itself at its end, as HTML: notices, what the reload test found, where a push went, what a fit
    for safety found.
    """
    if event.get("event") == "notice":
        return [escape(event["text"])]
    own = {key: value for key, value in event.items() if key != "event"}
    if event.get("event") == "trusted":
        return [escape(Trusted(**own).words())]
    if event.get("event") == "safest":
        losses = Losses(**own.pop("before")), Losses(**own.pop("after"))
        return [escape(Safest(**own, before=losses[0], after=losses[1]).words())]
    if event.get("event") == "pushed":
        url, who = escape(event["url"]), "private" if event["private"] else "public"
        return [f'<a href="{url}" target="_blank" rel="noreferrer">{url}</a>: {event["n_files"]} files, {who}.']
    if event.get("event") == "reloaded":
        return [escape(line) for line in Reloaded(**own).words()]
    return []


def _status(services: Services, page: Page, session: Session) -> Updates:
    latest = newest(services, session)
    look = services.looks.get(session.id)
    return {page.status.line: status_line(services, latest, look)} if look else {}


def _download(page: Page, archive: Path, said: list[str]) -> Updates:
    return {
        page.recipe.download: gr.update(value=str(archive), visible=True),
        page.recipe.saved: _listed(said),
        page.recipe.push: gr.update(visible=True),
        page.recipe.pushed: f'<p class="help">Pushes <b>{escape(archive.stem)}</b> as it was saved.</p>',
    }


def _listed(lines: list[str]) -> str:
    return f'<ul class="help">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'
