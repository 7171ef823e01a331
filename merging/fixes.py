"""One-click fixes: changes to a recipe as it is written, so that they mend its text too where it is no recipe yet."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from merging.errors import Fix, UserError
from merging.recipe import Recipe, parse_recipe
from merging.safe_yaml import read_yaml


def apply_fix(recipe: Recipe, fix: Fix) -> Recipe:
    """The recipe with this one change. Raises UserError where the fix is of another recipe."""
    return parse_recipe(mend_text(recipe.to_yaml(), fix), recipe.folder)


def mend_text(text: str, fix: Fix) -> str:
    """A recipe's text with this one change; comments in it are lost. Raises UserError as above."""
    document = None
    *above, last = fix.at
    try:
        (document,) = read_yaml(text)  # a problem of one document among several comes without a fix
        place: Any = document
        for key in above:
            place = _below(place, key)
        if fix.action == "set":
            place[last] = fix.value
        elif fix.action == "drop":
            del place[last]
        else:
            _rename(place, last, fix.value)
    except (KeyError, IndexError, TypeError, ValueError):
        raise UserError("E_FIX", "the recipe has changed since this fix was offered.", do="Check it again.") from None
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def leave_out(recipe: Recipe, source: str) -> Fix | None:
    """The fix that takes a model out of `models:`; None for the base, the last model, and in slices."""
    kept = [expert for expert in recipe.experts if expert.model != source]
    if recipe.slices or recipe.is_base(source) or not kept or len(kept) == len(recipe.experts):
        return None
    return Fix(f"Leave {_short(source)} out", "set", ("models",), _listed(recipe, kept))


def keep_first(recipe: Recipe, sources: Sequence[str]) -> Fix:
    """The fix that keeps only these models, once each, and the base's entry where it has one."""
    left, kept = list(sources), []
    for expert in recipe.experts:
        if expert.model in left:
            left.remove(expert.model)
            kept.append(expert)
        elif recipe.is_base(expert.model):
            kept.append(expert)
    return Fix(f"Merge only the first {len(sources)}", "set", ("models",), _listed(recipe, kept))


def _listed(recipe: Recipe, experts: Sequence[Any]) -> list[Any]:
    """Those entries of `models:`, as written."""
    entries = yaml.safe_load(replace(recipe, stages=()).to_yaml())["models"]
    return [entry for expert, entry in zip(recipe.experts, entries, strict=True) if any(expert is e for e in experts)]


def _below(place: Any, key: str | int) -> Any:
    """What lies at `key`; a mapping that is not there yet is made."""
    if isinstance(place, dict) and isinstance(key, str) and place.get(key) is None:
        place[key] = {}
    return place[key]


def _rename(place: dict, old: str | int, new: str) -> None:
    """Keeps the order; a value that stands under the new name already wins."""
    if not isinstance(place, dict) or old not in place:
        raise KeyError(old)
    items = list(place.items())
    place.clear()
    for key, value in items:
        if key != old:
            place[key] = value
        elif all(other != new for other, _ in items):
            place[new] = value


def _short(source: str) -> str:
    return Path(source).name or source
