"""One tensor of a live merge as weights."""

from collections.abc import Callable

import torch
from torch import Tensor

from merging.compute import kept_tensor, merged_weights, read_models
from merging.live_deltas import LiveDeltas, Step
from merging.pieces import in_blocks, pieces
from merging.resident import Resident
from merging.spectral import Fold
from merging.tensor_plan import TensorPlan

Merged = Tensor | Fold | None  # the weights in their output dtype, the fold that they are made of, or nothing yet


def weights_of(
    step: Step, tensor: TensorPlan, found: Merged, deltas: LiveDeltas, held: Resident, cancelled: Callable[[], bool]
) -> Tensor | None:
    """The tensor in its output dtype, on the CPU; None once `cancelled()`.

    A large family's embedding takes seconds: what is not `found` comes in pieces, so that a move need not wait for it.
    """
    plan, place = step.plan, held.place(tensor.name)
    if cancelled():
        return None
    if isinstance(found, Tensor):
        return found
    if not tensor.is_merged:
        return kept_tensor(plan, tensor)
    if held.lean and place == "cpu" and found is None and in_blocks(plan, tensor):
        parts = [piece() for piece in pieces(plan, tensor, step.peak) if not cancelled()]
        return None if cancelled() else torch.cat(parts).view(tensor.shape)
    if plan.space == "weights":  # the models themselves, so that no bit is lost through a difference
        return merged_weights(plan, tensor, read_models(plan, tensor, place)).to(tensor.dtype).cpu()
    return deltas.weights(step, tensor, deltas.delta(step, tensor) if found is None else found)
