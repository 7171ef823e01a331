"""TSV-M by FusionBench on the matrices of the layers, in an environment that has it: FAMILY OUT."""

import contextlib
import sys
from pathlib import Path

import torch
from fusion_bench.method.task_singular_vector.utils.TSVM_utils import compute_and_sum_svd_mem_reduction
from safetensors.torch import load_file, save_file

from benchmarks.runners.clock import done, ready

start = ready()
torch.set_num_threads(1)


def load(model: str) -> dict[str, torch.Tensor]:
    parts = [load_file(path) for path in sorted((Path(sys.argv[1]) / model).glob("*.safetensors"))]
    return {name: tensor.float() for part in parts for name, tensor in part.items() if ".layers." in name}


base = load("base")
vectors = []
for t in range(3):
    expert = load(f"expert{t}")
    vectors.append({name: expert[name] - base[name] for name in base})
with contextlib.redirect_stdout(sys.stderr):
    merged = compute_and_sum_svd_mem_reduction(vectors, accelerator=torch.device("cpu"))
save_file({name: tensor.contiguous() for name, tensor in merged.items()}, sys.argv[2])
done(start)
