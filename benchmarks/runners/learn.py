"""Keep the profile of a family as its live merge does: FAMILY STORE."""

import sys
from pathlib import Path

import torch

from benchmarks.family import EXPERTS
from benchmarks.runners.clock import done, ready
from merging.analysis import family
from merging.checkpoint import open_checkpoint
from merging.facts import Profile
from merging.store import Store

start = ready()
torch.set_num_threads(1)
base, *experts = (open_checkpoint(name, Path(sys.argv[1])) for name in ("base", *EXPERTS))
matrices = family(EXPERTS, {name: info.shape for name, info in base.tensors.items()}).matrices
profile = Profile(base, experts, [matrix.name for matrix in matrices], Store(Path(sys.argv[2])))
for matrix in matrices:
    below = base.read(matrix.name)
    profile.learn(matrix.name, below, torch.stack([expert.read(matrix.name).float() - below for expert in experts]))
done(start)
