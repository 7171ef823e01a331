"""What it costs that three experts read texts: RECIPE TEXTS EACH HOW. The models' loading does not count.

HOW is "read": each reads its own; "answer": each answers the questions in them; or a folder, in which they are measured
for the recipe's method.
"""

import sys
import time
from pathlib import Path

import torch

from benchmarks.runners.clock import done, ready
from eval.calibrating.calibrate import Calibrated, calibrate
from eval.calibrating.steps import Calibrating
from eval.calibrating.texts import read_texts, token_ids
from eval.running.layers import batches
from eval.running.models import Models
from eval.running.runtime import answer_batch
from merging.models import open_model
from merging.recipe import load_recipe

recipe, texts, each, how = load_recipe(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
start = ready()
if how in ("read", "answer"):
    models, spent, read = Models("cpu"), 0.0, []
    names = [expert.name for expert in recipe.experts]
    for expert, own in zip(recipe.experts, read_texts(texts, names, each), strict=True):
        model = models.model(open_model(expert.model, recipe.folder))
        ids = [token_ids(model.tokenizer, text) for text in own]
        read.append(sum(map(len, ids)))
        before = time.process_time()
        if how == "answer":
            answer_batch(model.module, model.tokenizer, [text.question() for text in own])
        else:
            with torch.inference_mode():
                for batch in batches(ids, 0, models.device):
                    model.module.model(input_ids=batch.ids, attention_mask=batch.real.long(), use_cache=False)
        spent += time.process_time() - before
    done(time.process_time() - spent, tokens=read)
else:
    for event in calibrate(recipe, Path(how), texts, each):
        if isinstance(event, Calibrating) and event.step == "texts":
            start = time.process_time()  # there is nothing to answer: what was spent so far opened the models
        if isinstance(event, Calibrated):
            done(start, tokens=event.tokens, bytes=event.n_bytes)
