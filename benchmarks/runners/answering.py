"""What it costs that three experts answer prompts: RECIPE TEXTS EACH. The models' loading does not count."""

import sys
import time
from pathlib import Path

import torch

from benchmarks.runners.clock import done, ready
from eval.calibrating.texts import read_texts
from eval.running.models import Models
from eval.running.runtime import answer_batch
from merging.models import open_model
from merging.recipe import load_recipe

recipe, texts, each = load_recipe(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
start = ready()
models, spent = Models("cpu"), 0.0
names = [expert.name for expert in recipe.experts]
for expert, own in zip(recipe.experts, read_texts(texts, names, each), strict=True):
    model = models.model(open_model(expert.model, recipe.folder))
    before = time.process_time()
    answer_batch(model.module, model.tokenizer, [text.question() for text in own])
    spent += time.process_time() - before
done(time.process_time() - spent)
