"""How the experts of a recipe relate to the base and to each other, one matrix at a time in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from merging import analysis
from merging.compute import read_deltas
from merging.errors import UserError
from merging.look import Matrix, Tail, family_of
from merging.plan import Plan


@dataclass(frozen=True)
class ExpertProfile:
    """One expert's delta on one matrix."""

    tail: Tail
    numerical_rank: int
    stable_rank: float
    half_energy: int  # directions that hold half of the squared norm


@dataclass(frozen=True)
class PairProfile:
    """Two experts on one matrix; measures as in `Conflict`, with `top_k` directions of each."""

    pair: tuple[str, str]
    top_k: int
    sign: float
    cosine: float
    shared: float
    interference: float


@dataclass(frozen=True)
class MatrixProfile:
    matrix: Matrix
    experts: tuple[ExpertProfile, ...]
    pairs: tuple[PairProfile, ...]
    done: int
    total: int


def profile(plan: Plan, names: tuple[str, ...]) -> Iterator[MatrixProfile]:
    """Measure every matrix inside the layers; `names` are the plan's experts as shown."""
    if plan.recipe.slices:
        raise UserError("E_SLICES", "conflicts are measured between whole models; this recipe has slices",
                        where="slices", kept="Nothing was written.", do="Write `models:`.")  # fmt: skip
    family = family_of(names, plan.base.shapes)
    for done, matrix in enumerate(family.matrices, 1):
        tensor = plan.tensor(matrix.name)
        base, factors = read_deltas(plan, tensor)
        base_norm = float(base.float().norm())
        kappa, eta = tensor.settings.get("outlier_threshold", 3.0), tensor.settings.get("sparsity_threshold", 0.1)
        k = max(1, factors.full_rank // len(names))
        experts, parts = [], []
        for t, name in enumerate(names):
            parts.append(factors.svd(t, k))
            spectrum = analysis.spectrum(name, factors.spectrum(t), None)
            tail = analysis.tail(name, factors.deltas[t], base_norm, kappa=kappa, eta=eta)
            experts.append(ExpertProfile(tail, factors.numerical_rank(t), spectrum.stable_rank, spectrum.half_energy))
        pairs = [
            PairProfile(
                (names[a], names[b]),
                k,
                analysis.sign_conflict(factors.deltas[a], factors.deltas[b]),
                analysis.cosine(factors.deltas[a], factors.deltas[b]),
                analysis.subspace_overlap(parts[a], parts[b]),
                analysis.interference(parts[a], parts[b]),
            )
            for a, b in combinations(range(len(names)), 2)
        ]
        yield MatrixProfile(matrix, tuple(experts), tuple(pairs), done, len(family.matrices))
