"""Locks of a recipe: which tensors are held to the base or to one model instead of being merged."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from merging.errors import UserError
from merging.recipe import Lock, Recipe
from merging.words import nearest, shown

BASE = -1  # what a tensor is held to; experts count from 0


def lock_target(recipe: Recipe, lock: Lock) -> str | None:
    """The model that a lock names, as the recipe writes it; None for the base. Raises UserError."""
    if lock.to == "base" or recipe.is_base(lock.to):
        if recipe.base is None:
            raise UserError("E_LOCK", "the recipe has no base to hold tensors to", where="locks",
                            do="Write `base_model: FOLDER`.")  # fmt: skip
        return None
    models = {expert.model: expert.name for expert in recipe.beside_base}
    found = [model for model, name in models.items() if lock.to == model] or [
        model for model, name in models.items() if lock.to == name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError("E_LOCK", f"{shown(lock.to)} names {len(found)} models", where="locks",
                        do="Write the model as in `models:`.")  # fmt: skip
    do = nearest(lock.to, ["base", *models, *models.values()]) or "Write `base`, or one of its models."
    raise UserError("E_LOCK", f"the recipe has no model {shown(lock.to)}", where="locks", do=do)


def held_to(target: str | None, inputs: Sequence[str]) -> int | None:
    """What a lock's target is among the models of a tensor: BASE or an input's index; None where it has no part."""
    return BASE if target is None else next((t for t, model in enumerate(inputs) if model == target), None)


def lock_problems(recipe: Recipe) -> Iterator[UserError]:
    for lock in recipe.locks:
        try:
            lock_target(recipe, lock)
        except UserError as error:
            yield error


def lock_of(locks: Sequence[Lock], tensor: str) -> int | None:
    """Index of the first lock that matches a tensor's whole name."""
    for i, lock in enumerate(locks):
        if any(fnmatchcase(tensor, p) for p in lock.tensors) and not any(fnmatchcase(tensor, p) for p in lock.but):
            return i
    return None
