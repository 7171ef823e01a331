"""Locks as the Map speaks of them: where they reach from the open matrix, and who holds a cell. Pure functions."""

import re
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from merging.errors import UserError
from merging.locks import lock_of, lock_target
from merging.look import Family, Matrix
from merging.recipe import Lock, Recipe
from ui.session import Scope, names_of


def taken_from(recipe: Recipe, family: Family, matrix: Matrix, scope: Scope, to: str | None) -> tuple[Lock, ...]:
    """The recipe's locks after that many matrices were taken from `base` or from a model; None merges them again.

    What was said of the same tensors before goes; a wider lock stays for the others.
    """
    pattern = _pattern(matrix, scope)
    rest = ((lock, tuple(t for t in lock.tensors if not fnmatchcase(t, pattern))) for lock in recipe.locks)
    kept = [replace(lock, tensors=tensors) for lock, tensors in rest if tensors]
    if to is not None:
        return (Lock(to, (pattern,)), *kept)
    freed = [m.name for m in family.matrices if fnmatchcase(m.name, pattern)]
    return tuple(
        replace(lock, but=(*lock.but, pattern)) if any(lock_of([lock], name) == 0 for name in freed) else lock
        for lock in kept
    )


def in_scope(family: Family, matrix: Matrix, scope: Scope) -> list[Matrix]:
    """The matrices in the open cell, in its layer, or in its row; a mixture's experts share a cell."""
    same = {"matrix": ("layer", "kind"), "layer": ("layer",), "kind": ("kind",)}[scope]
    return [m for m in family.matrices if all(getattr(m, part) == getattr(matrix, part) for part in same)]


def holders(recipe: Recipe, matrices: Iterable[Matrix]) -> dict[str, str]:
    """Tensor name -> the screen's name of the model that holds it, for those that a lock holds."""
    names = {"base": "base"} | {e.model: name for e, name in zip(recipe.experts, names_of(recipe), strict=True)}
    found = ((matrix.name, lock_of(recipe.locks, matrix.name)) for matrix in matrices)
    try:
        held = {name: lock_target(recipe, recipe.locks[i]) or "base" for name, i in found if i is not None}
    except UserError:  # such a recipe does not merge; its problem stands on the page
        return {}
    return {name: names[model] for name, model in held.items()}


def _pattern(matrix: Matrix, scope: Scope) -> str:
    head, _, tail = matrix.name.partition(f".{matrix.layer}.")
    if scope == "layer":
        return f"{head}.{matrix.layer}.*"
    tail = re.sub(r"\bexperts\.\d+\.", "experts.*.", tail)
    return f"{head}.{matrix.layer if scope == 'matrix' else '*'}.{tail}"
