"""What slider moves cost on the live merge: FAMILY METHOD. CPU seconds until its numbers are there, the plan apart."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.family import EXPERTS
from benchmarks.runners.clock import done, ready
from merging.checkpoint import open_checkpoint
from merging.live import LiveMerge
from merging.live_events import FocusReady, FoldedReady, LookReady
from merging.look import Look, family_of, gather, place
from merging.plan import Plan, make_plan
from merging.plots import MEASURES, conflict_map, kept_map, matrix_spectrum, rows_shown, spectra_sheet, tail_map
from merging.polar import polar
from merging.recipe import Expert, Recipe

SHOWN = "model.layers.0.self_attn.q_proj.weight"
LAYERS = 32  # of an 8 B model, and its matrices by those of the same shape that every family here has
KIN = {"self_attn.q": "q", "self_attn.k": "k", "self_attn.v": "k", "self_attn.o": "q", "mlp.gate": "gate",
       "mlp.up": "gate", "mlp.down": "gate"}  # fmt: skip
ROUNDS = 5  # the least counts
MOVES = 20  # of a weight, which takes milliseconds; the least counts
RANKS = (0.28, 0.26, 0.24)  # of all directions; where a rank's moves go from 0.3
start = ready()
torch.set_num_threads(1)
folder = Path(sys.argv[1])
models = [open_checkpoint(name, folder) for name in ("base", *EXPERTS)]
live = LiveMerge(models[0], models[1:], EXPERTS)


def recipe(weight: float = 1.0, budget: float = 0.3, mode: str = "none", strength: float = 1.0) -> Recipe:
    experts = (Expert(EXPERTS[0], (("weight", weight),)), *(Expert(name, (("weight", 1.0),)) for name in EXPERTS[1:]))
    settings = {"rank_mode": "uniform", "rank_budget": budget, "outlier_mode": mode, "outlier_strength": strength,
                "exclude": ("*embed*", "*lm_head*")}  # fmt: skip
    return Recipe(sys.argv[2], "base", experts, tuple(settings.items()), folder=folder)


def cpu(changed: Recipe, *until: type) -> Iterator[tuple[float, Look | None]]:
    """CPU seconds until each of these events has come, and the pictures where it holds them."""
    plan, wanted = make_plan(changed), list(until)
    begun = time.process_time()
    for event in live.move(plan, SHOWN, lambda: False):
        if wanted and isinstance(event, wanted[0]):
            yield time.process_time() - begun, event.look if isinstance(event, LookReady) else None
            del wanted[0]
        if not wanted:
            return


def least(*moves: Recipe, until: type = LookReady) -> float:
    return min(next(cpu(move, until))[0] for move in moves)


def polar_factors() -> float:
    """CPU seconds of the two polar factors that a rank's move makes of the shown matrix's kept directions."""
    sides = models[0].tensors[SHOWN].shape
    columns = [torch.randn(side, int(RANKS[-1] * min(sides))) for side in sides]
    begun = time.process_time()
    for each in columns:
        polar(each, 0.001)
    return time.process_time() - begun


def planning() -> float:
    begun = time.process_time()
    make_plan(recipe())
    return time.process_time() - begun


def of_many(look: Look) -> Look:
    """A look of all the matrices of an 8 B model, each as the first one of its shape here."""
    at = {matrix.kind: matrix for matrix in look.family.matrices if matrix.layer == 0}
    like = {f"model.layers.{i}.{part}_proj.weight": at[KIN[part]] for i in range(LAYERS) for part in KIN}
    many = family_of(EXPERTS, {name: matrix.shape for name, matrix in like.items()})
    views = {m.name: replace(look.views[like[m.name].name], matrix=m) for m in many.matrices}
    conflicts = {}
    for measure, conflict in look.conflicts.items():
        each = ((m, conflict.values[:, *place(look.family, like[m.name])].tolist()) for m in many.matrices)
        conflicts[measure] = replace(conflict, values=gather(many, len(conflict.rows), each))
    return replace(look, family=many, conflicts=conflicts, views=views)


def figures(look: Look) -> float:
    """CPU seconds to draw every picture there is, as dictionaries."""
    begun = time.process_time()
    opened = look.family.matrices[0]
    for measure in MEASURES:
        for row in rows_shown(look.conflicts[measure]):
            conflict_map(look, measure, row, opened)
    for name in EXPERTS:
        kept_map(look, name, opened)
        tail_map(look, name, "mass", opened)
        tail_map(look, name, "weight", opened)
    spectra_sheet(look, opened)
    matrix_spectrum(look.views[opened.name])
    return time.process_time() - begun


def dense_route() -> tuple[float, float]:
    """CPU seconds of the full SVDs of a matrix's deltas by LAPACK's gesdd: of the shown matrix, and of all on average.

    One delta of each shape, times all experts.
    """
    took: dict[tuple[int, int], float] = {}
    for matrix in live.family.matrices:
        if matrix.shape not in took:
            delta = models[1].read(matrix.name).float() - models[0].read(matrix.name).float()
            begun = time.process_time()
            torch.linalg.svd(delta, full_matrices=False)
            took[matrix.shape] = len(EXPERTS) * (time.process_time() - begun)
    each = {matrix.name: took[matrix.shape] for matrix in live.family.matrices}
    return each[SHOWN], sum(each.values()) / len(each)


def materialise(plan: Plan) -> tuple[float, float]:
    """CPU seconds of the shown matrix's merged weights, from its fold and the base's file; and of a product of the
    fold's shapes alone, which any such route must take.
    """
    folded = live.folded(plan)
    if folded is None:
        raise ValueError("no folds")
    fold = folded.folds[SHOWN]
    begun = time.process_time()
    (models[0].read(SHOWN).float() + fold.dense()).bfloat16()
    made = time.process_time()
    torch.mm(fold.u, fold.v.T)
    return made - begun, time.process_time() - made


(shown, _), (cold, look), _ = cpu(recipe(), FocusReady, LookReady, FoldedReady)
written, product = map(min, zip(*(materialise(make_plan(recipe())) for _ in range(ROUNDS)), strict=True))
planned = min(planning() for _ in range(ROUNDS))
weight = least(*(recipe(1 + i / 100) for i in range(1, MOVES)))
list(cpu(recipe(mode="layer_suppress"), FoldedReady))
layer = least(*(recipe(mode="layer_suppress", strength=1 - i / MOVES) for i in range(1, MOVES)))
rank = least(*(recipe(budget=budget) for budget in RANKS), until=FocusReady)
next(live.prepare(lambda: False))  # what idle time finds first: the next step's directions in the shown matrix
step = least(*(recipe(budget=RANKS[-1] - i % 2 / 50) for i in range(1, ROUNDS)), until=FocusReady)
gesdd, gesdd_each = dense_route()
drawn = min(figures(of_many(look)) for _ in range(ROUNDS)) if look else 0.0
polars = min(polar_factors() for _ in range(ROUNDS))
done(
    start,
    matrices=len(live.family.matrices),
    shown=shown,
    cold=cold,
    weight=weight,
    layer=layer,
    rank=rank,
    polar=polars,
    step=step,
    planned=planned,
    materialise=written,
    product=product,
    gesdd=gesdd,
    gesdd_each=gesdd_each,
    drawn=drawn,
)
