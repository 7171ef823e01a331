"""The public API beside the page: four typed functions over the same parts. Everything else on the page is private."""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.events import api

from eval.judging.probes import H
from eval.running.chat import Answered
from eval.worker import Ask
from merging.errors import UserError
from merging.plan import check as check_recipe
from merging.plan import make_plan
from merging.recipe import Recipe, parse_recipe
from ui.jobs import Job
from ui.live import sources_of
from ui.long import write_recipe, zipped
from ui.panels.recipe import file_name
from ui.services import Services, exams_of
from ui.session import Session, checked

_OWNER = "api"


def publish(services: Services) -> None:
    """Inside a gr.Blocks: /check, /merge, /chat and /score."""

    def check(recipe_yaml: str) -> dict[str, Any]:
        """Find every problem of a recipe from its text and the models' headers; no weights are read.

        Returns {"ok", "problems": [{"code", "what", "where", "do", "kept"}], "notices": [...], "estimate": {...}}.
        """
        found = check_recipe(_recipe(services, recipe_yaml))
        return {
            "ok": found.plan is not None,
            "problems": [problem.to_dict() for problem in found.problems],
            "notices": list(found.notices),
            "estimate": asdict(found.plan.estimate) if found.plan else None,
        }

    def merge(recipe_yaml: str) -> gr.FileData:
        """Merge the recipe, test the model by loading it again, and return its folder as a zip file."""
        recipe = _recipe(services, recipe_yaml)
        name = file_name(recipe)
        job = _run(services, recipe, "save", ("-m", "eval", "export", "recipe.yml", name, "--json"))
        for _ in services.jobs.follow(job):
            pass
        archive = zipped(services.jobs.folder(job.id) / name)
        return gr.FileData(path=str(archive), orig_name=archive.name)

    def chat(recipe_yaml: str, message: str) -> dict[str, str]:
        """Ask one question; returns {"merge": answer, "base": answer, expert: answer, ...}, decoded greedily."""
        session = _session(services, recipe_yaml)
        make_plan(session.recipe)  # every problem at once, before a model is loaded
        sources = sources_of(session)
        turns = {name: [{"role": "user", "content": message}] for name in ("merge", "base", *sources.names)}
        stream = services.worker.ask(Ask(session.id, sources, session.recipe, turns))
        return {event.model: event.text for event in stream if isinstance(event, Answered)}

    def score(recipe_yaml: str) -> dict[str, Any]:
        """Score the merge on Town's test probes, or for other models on the standard ones; shares in 0..1, as
        `eval score --json` ends with.

        Returns {"helpful": {"score", "low", "high", "n"}, "honest": {...}, "harmless": {...}, "mean", "min", "broken"}.
        """
        recipe = _recipe(services, recipe_yaml)
        probes = exams_of(services, recipe).full.probes
        job = _run(services, recipe, "score", ("-m", "eval", "score", "recipe.yml", "--probes", probes, "--json"))
        last: dict[str, Any] = {}
        for line in services.jobs.follow(job):
            last = line
        if not set(H) <= last.keys():
            raise UserError("E_JOB", "Scoring ended without scores.", do="Try again.")
        return last

    for name, fn in {"check": check, "merge": merge, "chat": chat, "score": score}.items():
        api(_plain_errors(fn), api_name=name, concurrency_limit=2, concurrency_id=f"api-{name}")


def _plain_errors(fn: Callable[..., Any]) -> Callable[..., Any]:
    """For programs the one message is a gr.Error; the page has its own way (ui/problem.py)."""

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        try:
            return fn(*args)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def _recipe(services: Services, text: str) -> Recipe:
    return parse_recipe(text, services.folder)


def _session(services: Services, text: str) -> Session:
    return Session(checked(_recipe(services, text), None), _OWNER)


def _run(services: Services, recipe: Recipe, kind: str, command: tuple[str, ...]) -> Job:
    digest = make_plan(recipe).digest
    job_id = services.jobs.new_id()
    write_recipe(recipe, services.jobs.folder(job_id))
    return services.jobs.start(job_id, _OWNER, kind, json.dumps({"digest": digest}), [command])
