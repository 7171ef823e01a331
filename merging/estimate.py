"""What a merge will need: disk, memory and time, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.cores import cores
from merging.method import Method

if TYPE_CHECKING:
    from merging.plan import TensorPlan

PROCESS = 250_000_000  # bytes of Python and torch before any tensor
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


def estimate(method: Method, n_experts: int, tensors: tuple[TensorPlan, ...]) -> Estimate:
    sizes = [math.prod(t.shape) for t in tensors]
    n_parameters, workers = sum(sizes), cores()
    disk = sum(size * t.dtype.itemsize for size, t in zip(sizes, tensors, strict=True))
    seconds = START + n_parameters * (15 * n_experts + 10) / 1e9  # nanoseconds an entry: read, merge, write, hash
    spaced = any(t.settings.get("space", "full") != "full" for t in tensors)
    if method.spectral or spaced or any(t.settings.get("shaper", "none") not in ("none", "rows") for t in tensors):
        matrices = [t.shape for t in tensors if len(t.shape) == 2 and not t.excluded]
        # a full SVD costs about 16 x max x min^2; one per expert and two for the polar factors; a core does 40 GFLOP/s
        # on large matrices, and less on small ones
        each = (16 * max(s) * min(s) * (min(s) + 300) for s in matrices)
        seconds += sum(each) * (n_experts + 2) / 40e9
    # as many tensors side by side as there are cores, each as float32 deltas, their stack, and what the method makes
    side_by_side = max((sum(sizes[i : i + workers]) for i in range(len(sizes))), default=0)
    return Estimate(n_parameters, disk, PROCESS + side_by_side * 4 * (3 * n_experts + 4), seconds)
