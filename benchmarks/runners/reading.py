"""What it costs that three experts read texts: RECIPE TEXTS EACH [OUT]. Without OUT each only reads its own, with OUT
they are measured for the recipe's method. The models' loading counts in neither.
"""

import sys
import time
from pathlib import Path

import torch

from benchmarks.runners.clock import done, ready
from eval.calibrating.calibrate import Calibrated, Calibrating, calibrate
from eval.calibrating.texts import read_texts, token_ids
from eval.running.layers import batches
from eval.running.models import Models
from merging.models import open_model
from merging.recipe import load_recipe

recipe, texts, each = load_recipe(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
if sys.argv[4:]:
    start = ready()
    for event in calibrate(recipe, Path(sys.argv[4]), texts, each):
        if isinstance(event, Calibrating) and event.step == "texts":
            start = time.process_time()  # there is nothing to answer: what was spent so far opened the models
        if isinstance(event, Calibrated):
            done(start, tokens=event.tokens, bytes=event.n_bytes)
else:
    start = ready()
    models, spent, read = Models("cpu"), 0.0, []
    names = [expert.name for expert in recipe.experts]
    for expert, own in zip(recipe.experts, read_texts(texts, names, each), strict=True):
        model = models.model(open_model(expert.model, recipe.folder))
        ids = [token_ids(model.tokenizer, text) for text in own]
        read.append(sum(map(len, ids)))
        before = time.process_time()
        with torch.inference_mode():
            for batch in batches(ids, 0, models.device):
                model.module.model(input_ids=batch.ids, attention_mask=batch.real.long(), use_cache=False)
        spent += time.process_time() - before
    done(time.process_time() - spent, tokens=read)
