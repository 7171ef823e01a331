"""The Hub ids of a recipe: which are not downloaded yet, and the recipe with each one's commit written out."""

from collections.abc import Generator
from pathlib import Path

from merging.download import download
from merging.events import Event
from merging.hub import Hub
from merging.hub_cache import ABSENT, local_model, split
from merging.models import written_out
from merging.plan import Plan, make_plan
from merging.recipe import Recipe
from merging.remote import hub_parts
from merging.sources import model_parts
from merging.writer import refuse_place


def missing(recipe: Recipe) -> list[str]:
    """The Hub ids whose weights are not on this machine, each once."""
    sources = [written_out(source, recipe.folder) for source in recipe.sources]
    parts = [part for source in sources for part in hub_parts(source, recipe.folder)]
    return [part for part in dict.fromkeys(parts) if not (folder := local_model(part)) or (folder / ABSENT).exists()]


def pinned(recipe: Recipe) -> Recipe:
    """The same recipe with `id@commit` for each Hub model that this machine knows, below adapters too."""

    def name(source: str) -> str:
        whole = written_out(source, recipe.folder)
        there = hub_parts(whole, recipe.folder)
        return "+".join(_pinned(part) if part in there else part for part in model_parts(whole, recipe.folder))

    return recipe.renamed(name)


def plan_downloaded(recipe: Recipe, hub: Hub, out: Path) -> Generator[Event, None, Plan]:
    """Download the recipe's Hub models that are missing; returns the plan of what is then here, each commit written
    out. Every problem that headers tell, or the place `out` of the merge, is raised before the first download.
    """
    refuse_place(make_plan(recipe, hub), out)
    fixed = pinned(recipe)
    for source in missing(fixed):
        yield from download(source, hub=hub)
    return make_plan(pinned(fixed))


def _pinned(part: str) -> str:
    folder = local_model(part)
    return f"{split(part)[0]}@{folder.name}" if folder else part
