"""Merge a recipe with mergekit, in an environment that has it: RECIPE OUT."""

import sys
from pathlib import Path

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

from benchmarks.runners.clock import done, ready

start = ready()
config = MergeConfiguration.model_validate(yaml.safe_load(Path(sys.argv[1]).read_text()))
run_merge(config, sys.argv[2], MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False))
done(start)
