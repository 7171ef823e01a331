"""A recipe file of several documents: which of them is the merge, and in which order the others feed it."""

from dataclasses import replace
from typing import TYPE_CHECKING

from merging.errors import UserError, all_of
from merging.words import shown

if TYPE_CHECKING:  # recipe.py, which reads the documents, imports this
    from merging.recipe import Recipe


def with_stages(recipes: "list[Recipe]") -> "Recipe":
    """The one recipe among several that no other needs; the others are its stages, each after those that it needs."""
    names = [recipe.name for recipe in recipes]
    unnamed = [i for i, name in enumerate(names, 1) if not name]
    problems = [
        UserError("E_STAGE", f"two documents are named {shown(name)}", where=f"document {names.index(name) + 1}")
        for name in dict.fromkeys(names)
        if name and names.count(name) > 1
    ]
    if len(unnamed) > 1:
        problems.append(UserError("E_STAGE", "only the last merge may lack a name", where=f"document {unnamed[0]}",
                                  do="Write `name: WORD`, and use WORD as a model."))  # fmt: skip
    if problems:
        raise all_of(problems, kept="")
    final = recipes[unnamed[0] - 1] if unnamed else recipes[-1]
    by_name = {recipe.name: recipe for recipe in recipes if recipe.name}
    ordered: dict[str, Recipe] = {}

    def need(recipe: "Recipe", above: tuple[str, ...]) -> None:
        for model in (recipe.base, *(expert.model for expert in recipe.experts), recipe.tokenizer_source):
            if model in above:
                circle = " needs ".join(shown(name)[1:-1] for name in (*above[above.index(model) :], model))
                raise UserError("E_STAGE", f"the merges need each other: {circle}", where="name")
            if model in by_name and model not in ordered:
                need(by_name[model], (*above, model))
                ordered[model] = by_name[model]

    need(final, (final.name,) if final.name else ())
    unused = [name for name in by_name if name not in ordered and by_name[name] is not final]
    if unused:
        do = "Use it as a model, or leave it out."
        idle = [UserError("E_STAGE", "no other document uses it", where=shown(name)[1:-1], do=do) for name in unused]
        raise all_of(idle, kept="")
    return replace(final, stages=tuple(ordered.values()))
