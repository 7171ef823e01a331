"""LEWIS: how dense each layer of an expert's delta stays, by how much it changes what its matrices do to their inputs.

Chopra, Rambhia, Adve 2025, arXiv 2503.03874. A matrix counts by `| |W_t diag(x_t)| - |W_0 diag(x_0)| |`: Frobenius
norms of the expert and of the base, each column times the length of the input that it met in expert t's own text. (The
authors read one text with all models, and prune the models on the way.)
"""

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt

from torch import Tensor

from merging.calibration import MAKE_WITH_BASE, Inputs
from merging.errors import UserError
from merging.layers import at_layer, layer_of
from merging.look import family_of
from merging.plan import Plan
from merging.recipe import Expert, Recipe
from merging.values import Case, Setting

LOW, HIGH = 0.3, 0.8


def lewis(plan: Plan) -> Recipe:
    """The plan's recipe with densities for each expert: by kind of matrix a list over the layers, 1 for other tensors.

    Raises UserError where the method has no density or the calibration lacks the inputs.
    """
    calibration, recipe = plan.calibration, plan.recipe
    if plan.method.knob("density") is None:
        raise UserError("E_FIT", f"`{plan.method.id}` has no density.", do="Choose a method that has one, as TIES.")
    if calibration is None or calibration.about.stream in ("merged", "learned") or not calibration.about.base_columns:
        what = "LEWIS needs what the experts' and the base's own matrices read"
        raise UserError("E_CALIBRATION", what, where=recipe.calibration or "", do=MAKE_WITH_BASE)
    matrices = family_of(["expert"], plan.base.shapes).matrices
    names = [matrix.name for matrix in matrices if matrix.name in calibration.about.matrices]
    if not names:
        raise UserError(
            "E_CALIBRATION", "what is measured is of none of these matrices", where=recipe.calibration or ""
        )
    of = dict(zip((expert.model for expert in recipe.beside_base), plan.experts, strict=True))
    experts: list[Expert] = []
    for expert in recipe.experts:
        model = of.get(expert.model)
        if model is None:  # the base among the models
            experts.append(expert)
            continue
        changes = {
            name: _change(
                plan.base.read(name).float(),
                model.read(name).float(),
                calibration.inputs(name, [model.fingerprint]),
            )
            for name in names
        }
        own = dict(expert.parameters) | {"density": by_layer(densities(changes, LOW, HIGH))}
        experts.append(replace(expert, parameters=tuple(own.items())))
    return replace(recipe, experts=tuple(experts), name="", note="")


def densities(changes: Mapping[str, float], low: float, high: float) -> dict[str, float]:
    """Of each matrix: its share of the change in all layers' matrices of its kind, the least of all becoming `low` and
    the most `high`; halfway between where all are alike.
    """
    totals: dict[str, float] = {}
    for name, change in changes.items():
        totals[_kind(name)] = totals.get(_kind(name), 0.0) + change
    shares = {name: change / (totals[_kind(name)] or 1.0) for name, change in changes.items()}
    least, most = min(shares.values()), max(shares.values())
    if most == least:
        return dict.fromkeys(shares, (low + high) / 2)
    return {name: low + (high - low) * (share - least) / (most - least) for name, share in shares.items()}


def by_layer(found: Mapping[str, float]) -> Setting:
    """As a recipe writes them: a filter and a list over depth for each kind; then 1 for all other tensors."""
    n_layers = 1 + max(layer_of(name) or 0 for name in found)
    kinds = dict.fromkeys(_kind(name) for name in found)
    lists: dict[str, list[float]] = {kind: [1.0] * n_layers for kind in kinds}
    for name, density in found.items():
        lists[_kind(name)][layer_of(name) or 0] = round(density, 3)
    return (*(Case(kind, tuple(values)) for kind, values in lists.items()), Case(None, 1.0))


def _kind(name: str) -> str:
    """What of a matrix's name does not depend on its layer: `.self_attn.q_proj.weight`."""
    first = at_layer(name, 0)
    return first[first.index(".0.") + 2 :]


def _change(base: Tensor, expert: Tensor, inputs: Inputs) -> float:
    assert inputs.gram
    assert inputs.base_columns
    before = _length(base.mT if inputs.transposed else base, inputs.base_columns()[0, 1])
    after = _length(expert.mT if inputs.transposed else expert, inputs.gram(0).diagonal())
    return abs(after - before)


def _length(weight: Tensor, squares: Tensor) -> float:
    """`|W diag(x)|` of W (m, n), from the mean squares of x (n,)."""
    return sqrt(float((weight.square().sum(0).double() * squares.double()).sum()))
