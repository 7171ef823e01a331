"""What a merge will need: disk, memory and time, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.method import Method

if TYPE_CHECKING:
    from merging.plan import TensorPlan


@dataclass(frozen=True)
class Estimate:
    """Rough costs of an export on one CPU core; seconds are within a factor of three."""

    n_parameters: int
    disk_bytes: int
    memory_bytes: int
    seconds: float
    download_bytes: int = 0  # of Hub models that are not on this machine


def estimate(method: Method, n_experts: int, tensors: tuple[TensorPlan, ...]) -> Estimate:
    sizes = [math.prod(t.shape) for t in tensors]
    n_parameters, largest = sum(sizes), max(sizes, default=0)
    disk = sum(size * t.dtype.itemsize for size, t in zip(sizes, tensors, strict=True))
    seconds = n_parameters * (n_experts + 2) * 4 / 1e9
    if method.spectral:
        matrices = [t.shape for t in tensors if len(t.shape) == 2 and not t.excluded]
        # a full SVD costs about 16 x max x min^2; one per expert and two for the polar factors; 30 GFLOP/s a core
        seconds += sum(16 * max(s) * min(s) ** 2 * (n_experts + 2) for s in matrices) / 30e9
        largest = max((math.prod(s) for s in matrices), default=largest) * 3
    return Estimate(n_parameters, disk, largest * 4 * (n_experts + 3) + min(disk, 1 << 30), seconds)
