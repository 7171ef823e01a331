"""What is learnt of a new family: FAMILY HOW [STORE], where HOW is "sampled" or "exact"; STORE keeps the exact one."""

import sys
from pathlib import Path

import torch

from benchmarks.family import EXPERTS
from benchmarks.runners.clock import done, ready
from merging.checkpoint import open_checkpoint
from merging.compute import family_deltas
from merging.facts import Profile
from merging.look import family_of
from merging.sample import Sample
from merging.store import Store

start = ready()
torch.set_num_threads(1)
folder, how, *kept = sys.argv[1:]
base, *experts = (open_checkpoint(name, Path(folder)) for name in ("base", *EXPERTS))
shown = family_of(EXPERTS, base.shapes)
if how == "sampled":
    sample = Sample(shown, base, experts)
    for matrix in shown.matrices:
        sample.learn(matrix)
    sample.look("", 0.0)
else:
    store = Store(Path(kept[0])) if kept else None
    profile = Profile(base, experts, [matrix.name for matrix in shown.matrices], store)
    for matrix in shown.matrices:
        below, factors = family_deltas(base, experts, matrix.name)
        profile.learn(matrix.name, below, factors.deltas)
done(start)
