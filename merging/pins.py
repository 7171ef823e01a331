"""The Hub ids of a recipe: which are not downloaded yet, and the recipe with each one's commit written out."""

from dataclasses import replace

from merging.hub_cache import ABSENT, local_model, split
from merging.recipe import Recipe
from merging.remote import hub_parts


def missing(recipe: Recipe) -> list[str]:
    """The Hub ids whose weights are not on this machine, each once."""
    parts = [part for source in _sources(recipe) for part in hub_parts(source, recipe.folder)]
    return [part for part in dict.fromkeys(parts) if not (folder := local_model(part)) or (folder / ABSENT).exists()]


def pinned(recipe: Recipe) -> Recipe:
    """The same recipe with `id@commit` for each Hub model that this machine knows."""

    def name(source: str) -> str:
        parts = hub_parts(source, recipe.folder)
        return "+".join(_pinned(part) if part in parts else part for part in source.split("+")) if parts else source

    return replace(
        recipe,
        base=recipe.base and name(recipe.base),
        experts=tuple(replace(expert, model=name(expert.model)) for expert in recipe.experts),
        tokenizer_source=recipe.tokenizer_source and name(recipe.tokenizer_source),
    )


def _sources(recipe: Recipe) -> list[str]:
    named = (recipe.base, *(expert.model for expert in recipe.experts), recipe.tokenizer_source)
    return [source for source in named if source]


def _pinned(part: str) -> str:
    folder = local_model(part)
    return f"{split(part)[0]}@{folder.name}" if folder else part
