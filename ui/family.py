"""Which models are on the desk: typed or found, checked from their headers, downloaded, opened."""

from collections.abc import Iterator
from dataclasses import replace

import gradio as gr

from merging.errors import all_of
from merging.fixes import apply_fix
from merging.hub import search
from merging.methods import METHODS
from merging.pins import missing
from merging.plan import check
from merging.recipe import Recipe
from merging.stage import without_idle
from ui.conversation import Turns
from ui.desk import apply_recipe, first_recipe
from ui.live import Updates, hold
from ui.long import start_job
from ui.page import Page
from ui.panels import models, passports
from ui.problem import fix_of
from ui.services import Services, is_town, keep, newest
from ui.session import Session, fresh_recipe
from ui.visitor import visitors_hub


def open_family(services: Services, page: Page, session: Session, turns: Turns, base: str, experts: str,
                token: str) -> Iterator[Updates]:  # fmt: skip
    """What was typed, checked from headers first; the last family stays until they fit and are all here."""
    yield from _open(services, page, session, turns, _typed(services, session, base, experts), token)


def mend_family(services: Services, page: Page, session: Session, turns: Turns, base: str, experts: str, token: str,
                event: gr.EventData) -> Iterator[Updates]:  # fmt: skip
    """The fix of a problem with what was typed; what it changes is typed anew."""
    recipe = apply_fix(_typed(services, session, base, experts), fix_of(event))
    yield models.shown(page.models, recipe)
    yield from _open(services, page, session, turns, recipe, token)


def _open(services: Services, page: Page, session: Session, turns: Turns, recipe: Recipe,
          token: str) -> Iterator[Updates]:  # fmt: skip
    keep(services.offered, session.id, recipe)
    checked = check(recipe, visitors_hub(token))
    if checked.plan is None or checked.plan.estimate.download_bytes:
        # Held as in front already: selecting the tab would draw the desk's family over what was typed.
        front = hold(services, page, replace(newest(services, session), tab="models"))
        yield {**front, page.tabs: gr.Tabs(selected="models"), **passports.draw(page.passports, recipe, checked)}
    if checked.plan is None:
        raise all_of(checked.problems, kept="The last family is still open.")
    if not checked.plan.estimate.download_bytes:
        yield from apply_recipe(services, page, session, turns, recipe)


def pick_family(services: Services, page: Page, session: Session, turns: Turns, family: str) -> Iterator[Updates]:
    """Town opens at once; models of one's own wait until they are typed in."""
    yield {page.models.own: gr.update(visible=family == models.OWN)}
    if family == models.TOWN and not is_town(services, session.recipe):
        yield from apply_recipe(services, page, session, turns, first_recipe(services))


def download(services: Services, page: Page, session: Session, turns: Turns, base: str, experts: str,
             token: str) -> Iterator[Updates]:  # fmt: skip
    """Bring what is missing to this machine, then open the family."""
    recipe = _typed(services, session, base, experts)
    checked = check(recipe, visitors_hub(token))
    if checked.plan is None:
        raise all_of(checked.problems, kept="Nothing was downloaded.")
    commands = [("-m", "merging", "download", source, "--json") for source in missing(recipe)]
    if commands:
        yield from start_job(services, page, session, turns, "download", {}, commands, token=_token(token))
        session = newest(services, session)  # another tab may be in front by now
    yield from open_family(services, page, session, turns, base, experts, token)


def find(page: Page, typed: str | None, token: str) -> Iterator[Updates]:
    """What the Hub has for the letters typed so far."""
    words = (typed or "").strip()
    if len(words) < 2:
        yield {page.passports.found: ""}
        return
    yield {page.passports.found: passports.found_html(words, ())}
    if not words.startswith((".", "/", "~")):
        yield {page.passports.found: passports.found_html(words, search(words, hub=visitors_hub(token)))}


def take(page: Page, experts: str | None, event: gr.EventData) -> Updates:
    """A found model becomes the base or one more expert of what is typed."""
    model = str(event._data.get("model", "")).strip()
    lines = [line for line in (experts or "").splitlines() if line.strip()]
    typed = {page.models.base: model}
    if event._data.get("use") == "expert":
        typed = {page.models.experts: "\n".join([*lines, model])}
    return {**typed, page.models.family: models.OWN, page.models.own: gr.update(visible=True)}


def _token(token: str) -> str:
    return visitors_hub(token).token or ""


def _typed(services: Services, session: Session, base: str, experts: str) -> Recipe:
    """A fresh recipe of what was typed, or names of merges on the desk; one that was mended already keeps its fixes."""
    base, listed = models.folders(base, experts)
    offered = services.offered.get(session.id)
    if offered and (offered.base, tuple(expert.model for expert in offered.experts)) == (base, listed):
        return offered
    fresh = fresh_recipe(METHODS[session.recipe.method], base, listed, services.folder)
    return without_idle(replace(fresh, stages=session.recipe.stages))
