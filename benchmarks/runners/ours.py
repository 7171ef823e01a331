"""Merge a recipe with Mergescope: RECIPE OUT [STORE], with the profile kept there."""

import sys
import time
from pathlib import Path

from benchmarks.runners.clock import done, ready
from merging.engine import merge
from merging.events import TensorDone
from merging.plan import make_plan
from merging.recipe import load_recipe
from merging.store import Store

start = ready()
first = 0.0  # CPU seconds from the start of the process to the first merged tensor
kept = Store(Path(sys.argv[3])) if sys.argv[3:] else None
for event in merge(make_plan(load_recipe(Path(sys.argv[1]))), Path(sys.argv[2]), profile=kept):
    if not first and isinstance(event, TensorDone):
        first = time.process_time()
done(start, first=first)
