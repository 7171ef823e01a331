"""Blind votes on the page: who answers is drawn and kept here, and goes to the browser only after the vote."""

import secrets
from collections.abc import Iterator

import gradio as gr

from eval.running.chat import Answered
from eval.scoring.runs import cast, votes
from eval.scoring.votes import Result, Vote
from eval.worker import Ask
from merging.errors import UserError
from merging.plan import make_plan
from ui.conversation import Turns
from ui.history import fingerprints
from ui.live import Updates, sources_of
from ui.measured import refuse_missing
from ui.page import Page
from ui.panels.votes import ballot_html, tally_html
from ui.services import Ballot, Services, exams_of, keep
from ui.session import Session, recipe_of


def ask_two(services: Services, page: Page, session: Session, turns: Turns, question: str) -> Iterator[Updates]:
    """A pair drawn evenly among merge, base and experts, on sides drawn too."""
    refuse_missing(session.recipe)
    panel, draw = page.board.votes, secrets.SystemRandom()
    sources, plan = sources_of(session), make_plan(recipe_of(session))
    base, *experts = fingerprints(session)
    models = {"merge": plan.digest, "base": base, **dict(zip(sources.names, experts, strict=True))}
    left, right = draw.sample(sorted(models), 2)
    probe = draw.choice(exams_of(services, session.recipe).first.asked.probes)
    messages = [{"role": "user", "content": question.strip()}] if (question or "").strip() else probe.conversation()
    services.ballots.pop(session.id, None)
    yield {panel.ask: gr.update(interactive=False), panel.row: gr.update(visible=False)}
    asked = Ask(session.id, sources, recipe_of(session), dict.fromkeys((left, right), messages))
    try:
        said = {event.model: event.text for event in services.worker.ask(asked) if isinstance(event, Answered)}
    except UserError:
        yield {panel.ask: gr.update(interactive=True)}
        raise
    ballot = Ballot(
        messages[-1]["content"], (left, right), (models[left], models[right]), (said[left], said[right]), base
    )
    keep(services.ballots, session.id, ballot)
    yield {
        panel.ask: gr.update(interactive=True),
        panel.answers: ballot_html(ballot.question, ballot.answers, None, sources.names),
        panel.row: gr.update(visible=True),
        panel.tally: _tally(base, models),
    }


def vote(services: Services, page: Page, result: Result, session: Session, turns: Turns) -> Iterator[Updates]:
    """The names, and how the votes stand; a second vote on the same question and pair changes nothing."""
    ballot, panel = services.ballots.pop(session.id, None), page.board.votes
    if ballot is None:
        return
    counted = cast(ballot.family, session.owner, ballot.question, Vote(*ballot.models, result))
    sources = sources_of(session)
    again = "" if counted else '<p class="help">You have voted on this pair and question before; that vote stays.</p>'
    base, *experts = fingerprints(session)
    called = {
        "base": base,
        **dict(zip(sources.names, experts, strict=True)),
        **dict(zip(ballot.names, ballot.models, strict=True)),
    }
    yield {
        panel.row: gr.update(visible=False),
        panel.answers: ballot_html(ballot.question, ballot.answers, ballot.names, sources.names) + again,
        panel.tally: _tally(ballot.family, called),
    }


def _tally(family: str, models: dict[str, str]) -> str:
    return tally_html(votes(family), {kept: name for name, kept in models.items()})
