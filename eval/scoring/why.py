"""Why an answer is as it is: merges without one expert, or without what some layers learned, are asked the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from merging.layers import layer_of
from merging.plan import Plan, check
from merging.recipe import Lock, Recipe

_GROUPS = 3  # of layers: early, middle, late


@dataclass(frozen=True)
class Without:
    """The answer of the merge without `what`: an expert's name, or layers; of the merge itself where that is empty."""

    what: str
    text: str
    passed: bool
    label: str


def variants(plan: Plan, names: Sequence[str]) -> Iterator[tuple[str, Plan]]:
    """Merges that leave one thing out: each expert, each third of the layers (held to the base), the rest likewise.

    names: of the recipe's `models:`, as shown. What a method cannot do, such as without its second expert, is left out.
    """
    recipe = plan.recipe
    for i, name in enumerate(names):
        if not recipe.is_base(recipe.experts[i].model) and (found := check(_without(recipe, i)).plan):
            yield name, found
    for what, tensors in _places(plan):
        held = replace(recipe, locks=(Lock("base", tensors), *recipe.locks))
        if found := check(held).plan:
            yield what, found


def _without(recipe: Recipe, i: int) -> Recipe:
    """And without the locks that name it."""
    gone = recipe.experts[i]
    locks = tuple(lock for lock in recipe.locks if lock.to not in (gone.model, gone.name))
    return replace(recipe, experts=(*recipe.experts[:i], *recipe.experts[i + 1 :]), locks=locks)


def _places(plan: Plan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is called how, with its tensors."""
    layers = sorted({layer for t in plan.tensors if (layer := layer_of(t.name)) is not None})
    size = -(-len(layers) // _GROUPS)
    for at in range(0, len(layers), max(size, 1)):
        mine = layers[at : at + size]
        what = f"layers {mine[0]} to {mine[-1]}" if len(mine) > 1 else f"layer {mine[0]}"
        yield what, tuple(t.name for t in plan.tensors if layer_of(t.name) in mine)
    rest = tuple(t.name for t in plan.tensors if layer_of(t.name) is None)
    if rest:
        yield "embeddings, final norm and head", rest
