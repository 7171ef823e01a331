"""Merge the layers of a family by sketched factors, as a large family's first pictures are: FAMILY RANK_BUDGET.

What is told of their bounds is measured on layer 0 after the clock has stopped, in float64.
"""

import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.family import EXPERTS
from benchmarks.runners.clock import done, ready
from merging.checkpoint import open_checkpoint
from merging.compute import family_deltas, merged_delta
from merging.decompose import singular_values
from merging.look import family_of
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from merging.spectral import Factors, Fold

start = ready()
torch.set_num_threads(1)
folder = Path(sys.argv[1])
base, *experts = (open_checkpoint(name, folder) for name in ("base", *EXPERTS))
shown = family_of(EXPERTS, base.shapes)
settings = {"rank_mode": "uniform", "rank_budget": float(sys.argv[2]), "outlier_mode": "none"}
plan = make_plan(Recipe("resm", "base", tuple(map(Expert, EXPERTS)), tuple(settings.items()), folder=folder))


def factors_of(name: str) -> tuple[Tensor, Factors]:
    below, found = family_deltas(base, experts, name)
    return below, Factors(found.deltas, found.noise, sketched=True)


def bounds(name: str) -> list[tuple[float, float]]:
    """Of each expert: how much longer than at best what is left of the delta is; how low the singular values are."""
    factors, found = factors_of(name)[1], []
    k = int(float(sys.argv[2]) * factors.full_rank / len(EXPERTS) + 1e-9)
    for t, delta in enumerate(factors.deltas):
        part, best = factors.svd(t, k), singular_values(delta.double())
        left = delta.double() - (part.u.double() * part.s.double()) @ part.v.double().T
        found.append((float(left.norm() / best[k:].norm()) - 1, float((1 - part.s / best[:k]).mean())))
    return found


for matrix in shown.matrices:
    below, factors = factors_of(matrix.name)
    merged = merged_delta(plan, plan.tensor(matrix.name), below, factors)
    merged = merged.dense() if isinstance(merged, Fold) else merged
cpu = time.process_time() - start
each = [pair for matrix in shown.matrices if matrix.layer == 0 for pair in bounds(matrix.name)]
done(start, cpu=cpu, excess=max(pair[0] for pair in each), low=sum(pair[1] for pair in each) / len(each))
