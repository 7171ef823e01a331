"""What `check` promises is what a merge of Town takes, within a factor; times are of the CPU, other work beside."""

import re
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from merging.engine import merge
from merging.plan import make_plan
from merging.recipe import parse_recipe
from tests.test_layers import ROOT

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory of a child as Linux tells it")
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


def peak_bytes(recipe, out) -> int:
    """Of a merge by its own count: what the kernel tells of a child includes this process before it became its own."""
    told = "import sys; from merging.__main__ import main; sys.exit(main() or print(open('/proc/self/status').read()))"
    command = [sys.executable, "-c", told, "merge", str(recipe), str(out)]
    status = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    return int(re.findall(rb"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@LINUX
def test_memory_of_a_merge(tmp_path):
    town = ROOT / "assets" / "town"
    recipe = tmp_path / "recipe.yml"
    recipe.write_text("merge_method: ties\n" + "".join(
        f"{line}\n" for line in RECIPE.replace("base_model: ", f"base_model: {town}/")
        .replace("model: h", f"model: {town}/h").splitlines()))  # fmt: skip
    plan = make_plan(parse_recipe(recipe.read_text(), tmp_path))
    peak = peak_bytes(recipe, tmp_path / "out")
    assert plan.estimate.memory_bytes / 3 < peak < 3 * plan.estimate.memory_bytes


@LINUX
def test_memory_of_an_element_wise_merge_does_not_grow_with_its_tensors(tmp_path):
    """A matrix of 24 million entries, three experts: whole in float32 they would take 1.2 GB."""
    for name in ("base", "one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        matrix = torch.full((3000, 8000), 0.5, dtype=torch.bfloat16)
        save_file({"matrix": matrix}, tmp_path / name / "model.safetensors")
    recipe = tmp_path / "recipe.yml"
    recipe.write_text("merge_method: task_arithmetic\nbase_model: base\ndtype: bfloat16\n"
                      "models: [{model: one}, {model: two}, {model: three}]\nparameters: {weight: 0.5}\n")  # fmt: skip
    plan = make_plan(parse_recipe(recipe.read_text(), tmp_path))
    assert plan.estimate.memory_bytes / 1.5 < peak_bytes(recipe, tmp_path / "out") < 1.5 * plan.estimate.memory_bytes
    whole = make_plan(parse_recipe(recipe.read_text().replace("task_arithmetic", "tsv_m"), tmp_path))
    assert whole.estimate.memory_bytes > 1_200_000_000  # a spectral method does hold it whole


def test_a_large_model_needs_its_tensors_side_by_side_and_more_experts_need_more(tmp_path):
    town = ROOT / "assets" / "town"
    start = "merge_method: ties\nbase_model: base\nmodels:\n- model: helpful\n"
    costs = [make_plan(parse_recipe(text, town)).estimate for text in (start, start + "- model: honest\n")]
    assert costs[0].disk_bytes == costs[1].disk_bytes
    assert costs[0].memory_bytes < costs[1].memory_bytes
    assert costs[0].seconds < costs[1].seconds
