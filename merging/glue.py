"""Many experts at once, as in Model-GLUE (2410.05357): alike ones are averaged first, then the averages merged.

Alike is told by the cosine of deltas. (The paper's cosine of weights is near 1 for any two experts of one base.)
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from merging.compute import read_deltas
from merging.errors import UserError
from merging.look import family_of
from merging.plan import Plan
from merging.recipe import Expert, Recipe
from merging.values import Settings


def delta_cosines(plan: Plan) -> np.ndarray:
    """(T, T) float64: of the experts' deltas over all matrices inside the layers, read one at a time; 0 where an expert
    changes none.
    """
    names = [str(t) for t in range(len(plan.experts))]
    dots = torch.zeros(len(names), len(names), dtype=torch.float64)
    for matrix in family_of(names, plan.base.shapes).matrices:
        flat = read_deltas(plan, plan.tensor(matrix.name))[1].deltas.flatten(1)
        dots += (flat @ flat.T).double()
    norms = dots.diagonal().sqrt()
    return torch.where(dots == 0, 0.0, dots / (norms * norms[:, None])).numpy()


def clusters(cosines: np.ndarray, least: float) -> list[list[int]]:
    """Experts by cluster, in their order. Average linkage: the two clusters with the highest mean cosine become one,
    until none reaches `least`.
    """
    found = [[t] for t in range(len(cosines))]
    while len(found) > 1:
        pairs = [(float(cosines[np.ix_(a, b)].mean()), i, j)
                 for i, a in enumerate(found) for j, b in enumerate(found) if i < j]  # fmt: skip
        highest, i, j = max(pairs, key=lambda pair: (pair[0], -pair[1], -pair[2]))
        if highest < least:
            break
        found[i] = sorted(found[i] + found.pop(j))
    return found


def average(recipe: Recipe, members: Sequence[int], name: str = "") -> Recipe:
    """The mean of some of the recipe's experts, in float32 where it feeds another merge."""
    own = tuple(Expert(recipe.experts[t].model, (("weight", 1 / len(members)),)) for t in members)
    return Recipe("task_arithmetic", recipe.base, own, (("lambda", 1.0),), dtype=recipe.dtype,
                  out_dtype="float32" if name else recipe.out_dtype, name=name, folder=recipe.folder)  # fmt: skip


def glued(recipe: Recipe, groups: Sequence[Sequence[int]]) -> Recipe:
    """The recipe over its clusters: one of several experts is a merge that feeds it, with the settings of its first."""
    if len(groups) == 1 and len(groups[0]) > 1:
        return replace(average(recipe, groups[0]), note=f"The mean of {len(groups[0])} experts that are alike.")
    stages: list[Recipe] = []
    experts: list[Expert] = []
    for group in groups:
        first = recipe.experts[group[0]]
        if len(group) == 1:
            experts.append(first)
            continue
        name = "-and-".join(recipe.experts[t].name for t in group)
        while name in recipe.sources or any(name == stage.name for stage in stages):
            name += "-mean"
        stages.append(average(recipe, group, name))
        experts.append(replace(first, model=name))
    return replace(recipe, experts=tuple(experts), stages=tuple(stages), name="")


def by_method(recipe: Recipe, method: str) -> Recipe:
    """The recipe with another method at its defaults and the same weights."""

    def weights(settings: Settings) -> Settings:
        return tuple(pair for pair in settings if pair[0] == "weight")

    experts = tuple(replace(expert, parameters=weights(expert.parameters)) for expert in recipe.experts)
    return replace(recipe, method=method, parameters=weights(recipe.parameters), experts=experts)


def refuse_parts(recipe: Recipe) -> None:
    """Raises UserError for a recipe whose experts cannot be grouped."""
    if recipe.slices or recipe.stages:
        raise UserError("E_SLICES", "clusters are made of whole models; this recipe has slices or stages.",
                        where="recipe", do="Write `models:` alone.")  # fmt: skip
    if recipe.base is None or len(recipe.beside_base) != len(recipe.experts) or len(recipe.experts) < 2:
        raise UserError("E_MODELS", "clusters need a base and two experts or more, the base not among them.",
                        where="models")  # fmt: skip
