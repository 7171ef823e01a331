"""The merge of one tensor: reads what its plan names, and computes in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from merging.blocks import Blocks
from merging.checkpoint import Checkpoint
from merging.decompose import noise_floor
from merging.layers import is_matrix
from merging.locks import BASE
from merging.ops import weighted_sum
from merging.random_bits import uniform_bits, uniform_number
from merging.shaping import after, enter, is_plain, shaped
from merging.spectral import Factors, Fold, dense

if TYPE_CHECKING:  # a plan may hold a merge that feeds it, which is computed here
    from merging.method import Method
    from merging.plan import Plan
    from merging.tensor_plan import TensorPlan

PINNED = 256 << 20  # bytes of a tensor that may lie in pinned memory, which torch never gives back


def kept_tensor(plan: Plan, tensor: TensorPlan) -> Tensor:
    """A tensor that is not merged, in its output dtype: of the model it is held to; a copy of its only input's."""
    part = 0 if tensor.action == "copy" and tensor.inputs else BASE if tensor.held is None else tensor.held
    if part == BASE:
        return plan.base.read(tensor.base_name).to(tensor.dtype)
    held = tensor.inputs[part]
    return plan.experts[held.model].read(held.name).to(tensor.dtype)


def settings_by_block(method: Method, blocks: Blocks, knobs: Mapping[str, Any]) -> Callable[[int, int], dict[str, Any]]:
    """What a method gets beside a block: its settings, what it must know of the whole stack, and the block's bits."""
    known = method.measure(blocks, **knobs) if method.measure else None

    def own(start: int, stop: int) -> dict[str, Any]:
        settings = dict(knobs)
        if known is not None:
            settings["known"] = known.at(start * blocks.width)
        if method.random:
            settings["bits"] = blocks.bits_of(start, stop)
        return settings

    return own


def onto(tensor: Tensor, device: str | torch.device) -> Tensor:
    """The tensor on a device. To CUDA through pinned memory: the thread reads on while it is copied over."""
    if torch.device(device).type != "cuda" or tensor.nbytes > PINNED:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def read_models(plan: Plan, tensor: TensorPlan, device: str = "cpu") -> Tensor:
    """(T, *shape) float32 of the models themselves."""
    return torch.stack([onto(plan.experts[part.model].read(part.name), device).float() for part in tensor.inputs])


def read_deltas(plan: Plan, tensor: TensorPlan, device: str = "cpu") -> tuple[Tensor, Factors]:
    """The base's tensor as stored, and the experts' float32 deltas (T, *shape) from it."""
    experts = [(plan.experts[part.model], part.name) for part in tensor.inputs]
    return deltas_from(plan.base, tensor.base_name, experts, device)


def deltas_from(
    below: Checkpoint, base_name: str, experts: Sequence[tuple[Checkpoint, str]], device: str | torch.device = "cpu"
) -> tuple[Tensor, Factors]:
    """Tensor `base_name` of `below` as stored, and the experts' float32 deltas from it; each expert comes with the name
    that it calls the tensor by.
    """
    base = onto(below.read(base_name), device)
    wide, deltas = base.float(), torch.empty(len(experts), *base.shape, device=base.device)
    low = tuple(
        write_delta(out, expert, name, below, base_name, wide)
        for out, (expert, name) in zip(deltas, experts, strict=True)
    )
    noise = noise_floor(base) if base.dim() >= 2 else 0.0
    return base, Factors(deltas, noise, low=low)


def family_deltas(
    base: Checkpoint, experts: Sequence[Checkpoint], name: str, device: str | torch.device = "cpu"
) -> tuple[Tensor, Factors]:
    """`deltas_from` for a tensor that base and experts call by one name."""
    return deltas_from(base, name, [(expert, name) for expert in experts], device)


def write_delta(
    out: Tensor, expert: Checkpoint, name: str, below: Checkpoint, base_name: str, base: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Writes to `out` one expert's float32 delta from `base`, which is tensor `base_name` of `below`. Returns the two
    factors of an adapter's delta, else None.

    `out` is memory that is there already: a new tensor would cost more than the difference.
    """
    if expert.over is not None and name == base_name and expert.over.fingerprint == below.fingerprint:
        low = expert.low_rank(name)
        if low is not None:
            b, a = (onto(part, base.device) for part in low)
            out.copy_(b @ a)
            return b, a
    out.copy_(onto(expert.read(name), base.device)).sub_(base)
    return None


def across_layers(plan: Plan, factors: Callable[[TensorPlan], Factors]) -> Tensor | None:
    """The statistic that a method compares between layers: its maximum over the matrices that need it, or None.

    On the CPU: matrices may lie on different devices.
    """
    if plan.method.across is None:
        return None

    def inside(matrix: Callable[[], Factors], tensor: TensorPlan) -> Factors:
        return enter(matrix(), tensor.settings).factors

    every = (
        plan.method.across(partial(inside, matrix, t), **t.settings)
        for t in plan.tensors
        if as_matrix(t) or as_stack(t)
        for matrix in _matrices(t, partial(factors, t))
    )
    found = [statistic.cpu() for statistic in every if statistic is not None]
    return torch.stack(found).amax(0) if found else None


def _matrices(tensor: TensorPlan, factors: Callable[[], Factors]) -> list[Callable[[], Factors]]:
    """A matrix itself, or each matrix of a stack."""
    if not as_stack(tensor):
        return [factors]
    whole = cache(factors)
    return [lambda e=e: whole().part(e) for e in range(tensor.shape[0])]


def merged_delta(
    plan: Plan, tensor: TensorPlan, base: Tensor, factors: Factors, peak: Tensor | None = None
) -> Tensor | Fold:
    """What a delta-space method adds to the base; experts with weight 0 are left out before it counts them.

    Matrices that are not excluded go through the recipe's space and shaper (`merging/shaping.py`), those of a stack one
    by one. Tensors that a spectral method does not take get lambda x the mean of the weighted deltas over the experts
    left in.
    """
    if as_stack(tensor) and (plan.method.spectral or not is_plain(tensor.settings)):
        names = (f"{tensor.name}[{e}]" for e in range(tensor.shape[0]))
        plans = (replace(tensor, name=name, shape=tensor.shape[1:]) for name in names)
        found = [merged_delta(plan, one, base[e], factors.part(e), peak) for e, one in enumerate(plans)]
        return torch.stack([*map(dense, found)])
    keep = kept_inputs(plan, tensor)
    deltas = factors.deltas
    if not keep:
        return torch.zeros_like(deltas[0])
    weights = torch.tensor([tensor.weights[t] for t in keep], dtype=deltas.dtype, device=deltas.device)
    if not as_matrix(tensor):
        if plan.method.spectral:
            return weighed(deltas[keep], weights, tensor)
        return plan.method(deltas[keep], weights, **_delta_settings(plan, tensor, keep, base, deltas))
    chosen = factors.select(keep)
    space = enter(chosen, tensor.settings)
    settings = _delta_settings(plan, tensor, keep, base, space.factors.deltas)
    if plan.method.across is not None:
        settings["peak"] = None if peak is None else peak[keep].to(deltas.device)
    shaper = after(tensor.settings)
    scale = 1.0
    if shaper and "lambda_" in settings:
        scale, settings["lambda_"] = settings["lambda_"], 1.0
    merged = space.back(
        plan.method(space.factors if plan.method.spectral else space.factors.deltas, weights, **settings)
    )
    if shaper is None:
        return merged
    inputs = plan.inputs(tensor, keep, deltas.device) if shaper.calibrated else None
    delta = shaped(shaper, merged, chosen, weights, tensor.settings, inputs)
    return replace(delta, x=scale * delta.x, strengths=None) if isinstance(delta, Fold) else scale * delta


def weighed(deltas: Tensor, weights: Tensor, tensor: TensorPlan) -> Tensor:
    """The merge of a tensor that a spectral method does not take: lambda x the mean of the weighted deltas."""
    return weighted_sum(deltas, weights, normalize=False).mul_(tensor.settings["lambda"] / len(deltas))


def gated(plan: Plan, tensor: TensorPlan, base: Tensor, factors: Factors) -> list[float]:
    """What the method's gate sees of each input's matrix, as `merged_delta` merges it; NaN where there is no gate."""
    found, keep = [math.nan] * len(tensor.inputs), kept_inputs(plan, tensor)
    if plan.method.gate is not None and keep and as_matrix(tensor) and tensor.held is None:
        space = enter(factors.select(keep), tensor.settings)
        settings = _delta_settings(plan, tensor, keep, base, space.factors.deltas)
        for t, value in zip(keep, plan.method.gate(space.factors.deltas, **settings).tolist(), strict=True):
            found[t] = value
    return found


def merged_weights(plan: Plan, tensor: TensorPlan, models: Tensor) -> Tensor:
    """What a weight-space method makes of the models (T, *shape) themselves."""
    keep = kept_inputs(plan, tensor)
    if not keep:
        return torch.zeros_like(models[0])
    weights = torch.tensor([tensor.weights[t] for t in keep], dtype=models.dtype, device=models.device)
    return plan.method(models[keep], weights, **method_settings(plan, tensor, keep, models))


def kept_inputs(plan: Plan, tensor: TensorPlan) -> list[int]:
    """The inputs a method sees: an expert with weight 0 is not there."""
    return [t for t, weight in enumerate(tensor.weights) if weight != 0 or plan.method.keeps_zero]


def _delta_settings(plan: Plan, tensor: TensorPlan, keep: list[int], base: Tensor, deltas: Tensor) -> dict:
    settings = method_settings(plan, tensor, keep, deltas)
    if plan.method.takes_base:
        settings["base"] = base.float()
    if plan.method.calibrated:
        settings["inputs"] = plan.inputs(tensor, keep, deltas.device)
    return settings


def method_settings(plan: Plan, tensor: TensorPlan, keep: list[int], stack: Tensor | None = None) -> dict:
    """Keyword arguments of the method for one tensor: `lambda` as `lambda_`, per-expert values as one tensor (T,).

    stack: what the method will see, (T, *shape); without it the random numbers are left to the caller.
    """
    settings = {}
    for knob in plan.method.knobs:
        value = tensor.settings[knob.key]
        if knob.per_expert:
            value = torch.tensor([value[t] for t in keep], dtype=torch.float64)  # .9 stays .9: int(.9 * 10) is 9
        settings["lambda_" if knob.key == "lambda" else knob.key] = value
    if plan.method.random and stack is not None:
        settings["bits"] = partial(_bits, plan, tensor, keep, stack)
    return settings


def as_matrix(tensor: TensorPlan) -> bool:
    """Whether it is merged as a matrix, as spectral methods, spaces and shapers do."""
    return tensor.action == "merge" and is_matrix(tensor.name, tensor.shape) and not tensor.excluded


def as_stack(tensor: TensorPlan) -> bool:
    """Whether the tensor (E, m, n) holds the experts of a mixture, each of which is merged as a matrix."""
    stack = len(tensor.shape) == 3 and min(tensor.shape[1:]) > 1 and ".experts." in tensor.name
    return tensor.action == "merge" and stack and not tensor.excluded


def _bits(plan: Plan, tensor: TensorPlan, keep: list[int], stack: Tensor, t: int, *, once: bool = False) -> Tensor:
    """Expert t's numbers for this tensor, or with `once` its one number (0-d) for the whole merge."""
    owner = plan.experts[tensor.inputs[keep[t]].model].fingerprint
    if once:
        return uniform_number(plan.recipe.seed, owner).to(stack.device)
    return uniform_bits(plan.recipe.seed, owner, tensor.name, tuple(stack.shape[1:])).to(stack.device)
