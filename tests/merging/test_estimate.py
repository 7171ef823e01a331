"""What `check` promises is what a merge of Town takes, within a factor; times are of the CPU, other work beside."""

import re
import subprocess
import sys
import time

import pytest

from merging.engine import merge
from merging.plan import make_plan
from merging.recipe import parse_recipe
from tests.test_layers import ROOT

RECIPE = """base_model: base
models: [{model: helpful}, {model: honest}, {model: harmless}]
parameters: {weight: 0.5}
"""


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "tsv_m"])
def test_seconds_and_bytes_of_a_merge(tmp_path, method):
    plan = make_plan(parse_recipe(f"merge_method: {method}\n{RECIPE}", ROOT / "assets" / "town"))
    begun = time.process_time()
    list(merge(plan, tmp_path / "out"))
    took = time.process_time() - begun
    assert plan.estimate.seconds / 6 < took < 6 * plan.estimate.seconds
    written = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert plan.estimate.disk_bytes < written < 1.02 * plan.estimate.disk_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of a child as Linux tells it")
def test_memory_of_a_merge(tmp_path):
    town = ROOT / "assets" / "town"
    recipe = tmp_path / "recipe.yml"
    recipe.write_text("merge_method: ties\n" + "".join(
        f"{line}\n" for line in RECIPE.replace("base_model: ", f"base_model: {town}/")
        .replace("model: h", f"model: {town}/h").splitlines()))  # fmt: skip
    plan = make_plan(parse_recipe(recipe.read_text(), tmp_path))
    # By its own count: what the kernel tells of a child includes this process before the child became its own.
    told = "import sys; from merging.__main__ import main; sys.exit(main() or print(open('/proc/self/status').read()))"
    command = [sys.executable, "-c", told, "merge", str(recipe), str(tmp_path / "out")]
    status = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    peak = int(re.findall(rb"VmHWM:\s+(\d+) kB", status)[0]) * 1024
    assert plan.estimate.memory_bytes / 3 < peak < 3 * plan.estimate.memory_bytes


def test_a_large_model_needs_its_tensors_side_by_side_and_more_experts_need_more(tmp_path):
    town = ROOT / "assets" / "town"
    start = "merge_method: ties\nbase_model: base\nmodels:\n- model: helpful\n"
    costs = [make_plan(parse_recipe(text, town)).estimate for text in (start, start + "- model: honest\n")]
    assert costs[0].disk_bytes == costs[1].disk_bytes
    assert costs[0].memory_bytes < costs[1].memory_bytes
    assert costs[0].seconds < costs[1].seconds
