"""The first look at a family before anything is known of it: FAMILY HOW, where HOW is "sampled" or "exact"."""

import sys
from pathlib import Path

import torch

from benchmarks.family import EXPERTS
from benchmarks.runners.clock import done, ready
from merging.analysis import family
from merging.checkpoint import open_checkpoint
from merging.facts import facts_of
from merging.sample import Sample

start = ready()
torch.set_num_threads(1)
folder = Path(sys.argv[1])
base, *experts = (open_checkpoint(name, folder) for name in ("base", *EXPERTS))
shown = family(EXPERTS, {name: info.shape for name, info in base.tensors.items()})
sample = Sample(shown, base, experts)
for matrix in shown.matrices:
    if sys.argv[2] == "sampled":
        sample.learn(matrix)
    else:
        below = base.read(matrix.name)
        facts_of(below, torch.stack([expert.read(matrix.name).float() - below.float() for expert in experts]))
if sys.argv[2] == "sampled":
    sample.look("", 0.0)
done(start)
