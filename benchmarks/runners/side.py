"""What an answer through the folds costs, and through written weights: FAMILY. CPU seconds of 1, 16 and 128 tokens."""

import sys
import time
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks.family import EXPERTS
from benchmarks.runners.clock import done, ready
from eval.running.loading import load_source
from eval.running.side_path import SidePath, suits
from merging.checkpoint import open_checkpoint
from merging.live import LiveMerge
from merging.plan import make_plan
from merging.recipe import Expert, Recipe

ROUNDS = {1: 60, 16: 20, 128: 6}  # by tokens; the least counts
start = ready()
torch.set_num_threads(1)
family = Path(sys.argv[1])
recipe = Recipe("resm", "base", tuple(Expert(name, (("weight", 1.0),)) for name in EXPERTS),
                (("rank_mode", "uniform"), ("rank_budget", 0.3), ("outlier_mode", "none"),
                 ("exclude", ("*embed*", "*lm_head*"))), folder=family)  # fmt: skip
plan = make_plan(recipe)
live = LiveMerge(plan.base, plan.experts, EXPERTS)
list(live.move(plan, None, lambda: False))
folded = live.folded(plan)
base = load_source(open_checkpoint("base", family), torch.float32).eval()
if folded is None or not suits(base, folded):
    raise ValueError("no side path")
beside = SidePath(base, folded).module


@torch.inference_mode()
def seconds(module: PreTrainedModel, tokens: int) -> float:
    """Of the stack of layers without the head, which is the same in both."""
    ids = torch.arange(tokens).unsqueeze(0)
    begun = time.process_time()
    module.model(input_ids=ids, use_cache=False)
    return time.process_time() - begun


said = {}
for tokens, rounds in ROUNDS.items():
    pairs = [(seconds(base, tokens), seconds(beside, tokens)) for _ in range(rounds)]
    said[str(tokens)] = [min(column) for column in zip(*pairs, strict=True)]
ranks = {name: len(fold.x) / min(len(fold.u), len(fold.v)) for name, fold in folded.folds.items()}
done(start, seconds=said, matrices=len(ranks), share=sum(ranks.values()) / len(ranks))
