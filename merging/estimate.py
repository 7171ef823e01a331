"""What a merge will need: disk, memory and time, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.blocks import BLOCK
from merging.cores import cores
from merging.pieces import PIECE, in_blocks
from merging.stage import stages_of

if TYPE_CHECKING:
    from merging.plan import Plan
    from merging.tensor_plan import TensorPlan

PROCESS = 250_000_000  # bytes of Python and torch before any tensor
RANDOM = 64 << 20  # bytes per core of random numbers kept from block to block, and of what sorts by them
START = 0.15  # seconds for headers, journal and small files


@dataclass(frozen=True)
class Estimate:
    """Rough costs of an export on this machine: memory of the whole process, seconds of one CPU core.

    Measured on Town and on a model of 0.1 billion parameters: both are within a factor of three.
    """

    n_parameters: int
    disk_bytes: int
    memory_bytes: int
    seconds: float
    download_bytes: int = 0  # of Hub models that are not on this machine


def estimate(plan: Plan) -> Estimate:
    """Of the plan's merge, with the time and memory of the merges that feed it."""
    sizes = [math.prod(t.shape) for t in plan.tensors]
    disk = sum(size * t.dtype.itemsize for size, t in zip(sizes, plan.tensors, strict=True))
    merges = [plan, *(stage.plan for stage in stages_of(plan))]
    memory, seconds = PROCESS + sum(map(_memory, merges)), START + sum(map(_seconds, merges))
    return Estimate(sum(sizes), disk, memory, seconds, plan.download_bytes)


def _seconds(plan: Plan) -> float:
    method, tensors, n_experts = plan.method, plan.tensors, len(plan.experts)
    n_parameters = sum(math.prod(t.shape) for t in tensors)
    seconds = n_parameters * (15 * n_experts + 10) / 1e9  # nanoseconds an entry: read, merge, write, hash
    spaced = any(t.settings.get("space", "full") != "full" for t in tensors)
    if method.spectral or spaced or any(t.settings.get("shaper", "none") not in ("none", "rows") for t in tensors):
        matrices = [t.shape for t in tensors if len(t.shape) == 2 and not t.excluded]
        # a full SVD costs about 16 x max x min^2; one per expert and two for the polar factors; a core does 40 GFLOP/s
        # on large matrices, and less on small ones
        each = (16 * max(s) * min(s) * (min(s) + 300) for s in matrices)
        seconds += sum(each) * (n_experts + 2) / 40e9
    return seconds


def _memory(plan: Plan) -> int:
    """Bytes of what is merged side by side, and of the pieces that wait to be written."""
    workers = cores()
    held = [_held(plan, tensor) for tensor in plan.tensors]
    side_by_side = max((sum(held[i : i + workers]) for i in range(len(held))), default=0)
    waiting = max((min(math.prod(t.shape), PIECE) * t.dtype.itemsize for t in plan.tensors), default=0)
    return side_by_side + (2 * workers + 1) * waiting + (workers * RANDOM if plan.method.random else 0)


def _held(plan: Plan, tensor: TensorPlan) -> int:
    """A tensor, or one block of it: as float32 deltas, their stack, and what the method makes of them."""
    size = math.prod(tensor.shape)
    if not tensor.is_merged:
        return 8 * size
    if in_blocks(plan, tensor) and all(plan.experts[part.model].is_stored(part.name) for part in tensor.inputs):
        size = min(size, BLOCK)
    return 4 * size * (3 * len(plan.experts) + 4)
