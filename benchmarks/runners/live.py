"""What slider moves cost on the live merge: FAMILY METHOD. CPU seconds until all numbers and pictures are there."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.runners.clock import done, ready
from merging.checkpoint import open_checkpoint
from merging.live import LiveMerge
from merging.live_events import LookReady
from merging.plan import make_plan
from merging.recipe import Expert, Recipe

NAMES = ("expert0", "expert1", "expert2")
start = ready()
torch.set_num_threads(1)
family = Path(sys.argv[1])
models = [open_checkpoint(name, family) for name in ("base", *NAMES)]
live = LiveMerge(models[0], models[1:], NAMES)
recipe = Recipe(sys.argv[2], "base", tuple(Expert(n, (("weight", 1.0),)) for n in NAMES),
                (("rank_mode", "uniform"), ("rank_budget", 0.3), ("outlier_mode", "none"),
                 ("exclude", ("*embed*", "*lm_head*"))), folder=family)  # fmt: skip


def move(changed: Recipe) -> float:
    plan = make_plan(changed)
    begun = time.process_time()
    for event in live.move(plan, None, lambda: False):
        if isinstance(event, LookReady):
            return time.process_time() - begun
    raise ValueError("no pictures came")


def with_rank(budget: float) -> Recipe:
    return replace(recipe, parameters=tuple((k, budget if k == "rank_budget" else v) for k, v in recipe.parameters))


heavier = replace(recipe, experts=(Expert("expert0", (("weight", 1.3),)), *recipe.experts[1:]))
cold, weight, rank = move(recipe), move(heavier), move(with_rank(0.24))
done(start, cold=cold, weight=weight, rank=rank, matrices=len(live.family.matrices))
