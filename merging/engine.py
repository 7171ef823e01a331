"""Runs a plan: streams tensor by tensor, computes in float32, casts once at the end."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from merging import writer
from merging.checkpoint import Checkpoint
from merging.events import Event
from merging.plan import Plan, TensorPlan
from merging.spectral import Factors, Fold, noise_floor

BLOCK = 1 << 18  # entries that share one counter of the random generator


def merge(plan: Plan, out: Path, *, device: str = "cpu", resume: bool = False) -> Iterator[Event]:
    """Write the merged model to `out`, whole or not at all; yields typed events."""

    def tensors(skip: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        return merged_tensors(plan, device=device, skip=skip)

    yield from writer.write(plan, out, tensors, resume=resume)


def merged_tensors(plan: Plan, *, device: str = "cpu", skip: Collection[str] = ()) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the merge in plan order, in its output dtype, on the CPU.

    Matrices are computed side by side; at most two a core are held, so memory does not grow with the model.
    """
    workers = 1 if device != "cpu" else max(1, os.cpu_count() or 1)
    waiting: deque[tuple[str, Future[Tensor]]] = deque()
    with one_thread_a_matrix(), ThreadPoolExecutor(workers) as pool:
        peak = across_layers(plan, lambda tensor: read_factors(plan, tensor, device))
        try:
            for tensor in plan.tensors:
                if tensor.name in skip:
                    continue
                waiting.append((tensor.name, pool.submit(_finished, plan, tensor, peak, device)))
                if len(waiting) > 2 * workers:
                    name, result = waiting.popleft()
                    yield name, result.result()
            while waiting:
                name, result = waiting.popleft()
                yield name, result.result()
        finally:
            for _, result in waiting:
                result.cancel()


@contextmanager
def one_thread_a_matrix() -> Iterator[None]:
    """LAPACK's results change with its number of threads: one each, many matrices side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def across_layers(plan: Plan, factors: Callable[[TensorPlan], Factors]) -> Tensor | None:
    """The statistic that a method compares between layers: its maximum over the matrices that need it, or None."""
    if plan.method.across is None:
        return None
    every = (plan.method.across(partial(factors, t), **t.settings) for t in plan.tensors if is_spectral(t))
    found = [statistic for statistic in every if statistic is not None]
    return torch.stack(found).amax(0) if found else None


def merged_delta(plan: Plan, tensor: TensorPlan, factors: Factors, peak: Tensor | None = None) -> Tensor | Fold:
    """What a delta-space method adds to the base; experts with weight 0 are left out before it counts them.

    Tensors that a spectral method does not take (not a matrix, or excluded) get lambda x the mean of the weighted
    deltas over the experts left in.
    """
    keep = [t for t, weight in enumerate(tensor.weights) if weight != 0]
    deltas = factors.deltas
    if not keep:
        return torch.zeros_like(deltas[0])
    weights = torch.tensor([tensor.weights[t] for t in keep], dtype=deltas.dtype, device=deltas.device)
    if plan.method.spectral and not is_spectral(tensor):
        scale = tensor.settings["lambda"] / len(keep)
        return scale * torch.tensordot(weights, deltas[keep], 1)
    settings = method_settings(plan, tensor, keep, deltas.device)
    if not plan.method.spectral:
        return plan.method(deltas[keep], weights, **settings)
    if plan.method.across is not None:
        settings["peak"] = None if peak is None else peak[keep]
    return plan.method(factors.select(keep), weights, **settings)


def merged_weights(plan: Plan, tensor: TensorPlan, models: Tensor) -> Tensor:
    """What a weight-space method makes of the models (T, *shape) themselves."""
    keep = [t for t, weight in enumerate(tensor.weights) if weight != 0]
    if not keep:
        return torch.zeros_like(models[0])
    weights = torch.tensor([tensor.weights[t] for t in keep], dtype=models.dtype, device=models.device)
    return plan.method(models[keep], weights, **method_settings(plan, tensor, keep, models.device))


def method_settings(plan: Plan, tensor: TensorPlan, keep: list[int], device: torch.device) -> dict:
    """Keyword arguments of the method for one tensor: `lambda` becomes `lambda_`, per-expert values a tensor (T,)."""
    settings = {}
    for knob in plan.method.knobs:
        value = tensor.settings[knob.key]
        if knob.per_expert:
            value = torch.tensor([value[t] for t in keep])
        settings["lambda_" if knob.key == "lambda" else knob.key] = value
    if plan.method.random:
        settings["bits"] = partial(_bits, plan, tensor, keep, device)
    return settings


def is_spectral(tensor: TensorPlan) -> bool:
    return tensor.action == "merge" and len(tensor.shape) == 2 and min(tensor.shape) > 1 and not tensor.excluded


def read_factors(plan: Plan, tensor: TensorPlan, device: str = "cpu") -> Factors:
    base = plan.base.read(tensor.name).to(device)
    return delta_factors(base, [expert.read(tensor.name).to(device) for expert in plan.experts])


def delta_factors(base: Tensor, experts: list[Tensor]) -> Factors:
    """float32 deltas (T, *shape) of one tensor, as the start of any delta-space method."""
    deltas = torch.stack([expert.float() - base.float() for expert in experts])
    return Factors(deltas, noise_floor(base) if base.dim() == 2 else 0.0)


def uniform_bits(seed: int, owner: str, tensor: str, shape: tuple[int, ...]) -> Tensor:
    """float32 numbers in [0, 1), keyed by (seed, owner's content hash, tensor, block): the same in any order."""
    key = hashlib.sha256(f"{seed}/{owner}/{tensor}".encode()).digest()[:16]
    n = int(np.prod(shape, dtype=np.int64))
    out = np.empty(n, dtype=np.float32)
    for block in range(0, n, BLOCK):
        generator = np.random.Generator(
            np.random.Philox(key=int.from_bytes(key, "little"), counter=[0, 0, 0, block // BLOCK])
        )
        generator.random(out=out[block : block + BLOCK], dtype=np.float32)
    return torch.from_numpy(out).view(shape)


def _bits(plan: Plan, tensor: TensorPlan, keep: list[int], device: torch.device, t: int) -> Tensor:
    bits = uniform_bits(plan.recipe.seed, plan.experts[keep[t]].fingerprint, tensor.name, tensor.shape)
    return bits.to(device)


def _finished(plan: Plan, tensor: TensorPlan, peak: Tensor | None, device: str) -> Tensor:
    base = plan.base.read(tensor.name)
    if tensor.action == "copy":
        return base
    base = base.to(device)
    experts = [_read(expert, plan.base, base, tensor.name, device) for expert in plan.experts]
    if plan.method.space == "weights":
        merged = merged_weights(plan, tensor, torch.stack([expert.float() for expert in experts]))
    else:
        delta = merged_delta(plan, tensor, delta_factors(base, experts), peak)
        merged = base.float() + (delta.dense() if isinstance(delta, Fold) else delta)
    return merged.to(tensor.dtype).cpu()


def _read(expert: Checkpoint, base: Checkpoint, base_tensor: Tensor, name: str, device: str) -> Tensor:
    return base_tensor if expert is base else expert.read(name).to(device)
