"""The numbers of a merged delta, in closed form where it is a fold: a slider that moves one vector costs one vector.

For `D = U diag(x) V^T` the norm is `sqrt(x^T H x)` with `H = (U^T U) * (V^T V)`, and the inner product with an expert's
delta E is `sum_i x_i u_i^T E v_i`: both need the matrices once a fold, not once a move.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from torch import Tensor, stack

from merging import analysis
from merging.decompose import SVD
from merging.facts import MatrixFacts
from merging.spectral import Factors, Fold


@dataclass(frozen=True, eq=False)
class Crossed:
    """What a fold's directions have to do with the experts and with each other.

    u: those of the fold. inner: (T, R) float64, `u_i^T E_t v_i`. gram: H (R, R) float64, None where it is the identity.
    """

    u: Tensor
    inner: Tensor
    gram: Tensor | None


@dataclass(frozen=True)
class Numbers:
    """along: inner product with each expert's delta."""

    norm: float
    along: tuple[float, ...]

    def cosines(self, norms: Sequence[float]) -> list[float]:
        """With each expert's delta, whose norms are given; nan where one is 0."""
        return [
            along / (self.norm * norm) if self.norm * norm > 0 else math.nan
            for along, norm in zip(self.along, norms, strict=True)
        ]


def cross(fold: Fold, deltas: Tensor) -> Crossed:
    """The cross terms of a fold with the experts' deltas (T, m, n)."""
    inner = stack([((delta @ fold.v) * fold.u).double().sum(0) for delta in deltas])
    gram = None
    if fold.core is not None:
        left, right = (part.double() for part in fold.core)
        gram = (left.T @ left) * (right.T @ right)
    return Crossed(fold.u, inner, gram)


def numbers_of_fold(fold: Fold, crossed: Crossed) -> Numbers:
    x = fold.x.double()
    square = float(x @ (x if crossed.gram is None else crossed.gram @ x))
    return Numbers(math.sqrt(max(0.0, square)), tuple((crossed.inner @ x).tolist()))


def numbers_of_delta(delta: Tensor, deltas: Tensor) -> Numbers:
    """The same of any merged delta (m, n), by going over it."""
    return Numbers(float(delta.norm()), tuple(float((delta * each).sum()) for each in deltas))


def pair_measures(facts: MatrixFacts, factors: Factors, parts: Sequence[SVD]) -> dict[str, list[float]]:
    """The measures of every pair of experts; `parts` are their leading triplets, as many as count."""
    found: dict[str, list[float]] = {measure: [] for measure in ("sign", "cosine", "shared", "interference")}
    for a, b in combinations(range(len(parts)), 2):
        heads, cut = (parts[a], parts[b]), (a, b, len(parts[a].s), len(parts[b].s))
        found["sign"].append(facts.pairs[a, b].sign_conflict)
        found["cosine"].append(facts.cosine(a, b))
        found["shared"].append(factors.remember(("shared", *cut), partial(analysis.subspace_overlap, *heads)))
        found["interference"].append(factors.remember(("interference", *cut), partial(analysis.interference, *heads)))
    return found
