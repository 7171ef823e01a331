"""The merged deltas of any recipe of one family, from what is held of it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from merging.blocks import whole
from merging.checkpoint import Checkpoint
from merging.compute import (
    across_layers,
    kept_inputs,
    kept_tensor,
    merged_delta,
    merged_weights,
    method_settings,
    onto,
    read_deltas,
    read_models,
    settings_by_block,
)
from merging.errors import UserError
from merging.facts import MatrixFacts
from merging.plan import Plan
from merging.resident import Resident
from merging.shaping import is_plain
from merging.spectral import Factors, Fold, dense
from merging.tensor_plan import TensorPlan
from merging.view import View, stored


@dataclass(frozen=True)
class Step:
    """A recipe and what of it is the same for all tensors, worked out once a move."""

    plan: Plan
    order: tuple[int, ...]  # where each of its experts stands in the family
    views: tuple[View, ...]  # its models that a choice of vocabulary may give other rows
    peak: Tensor | None = None  # see `across_layers`
    outputs: bool = True  # whether the picture of the experts' outputs is worth a pass over every matrix

    def changed(self, name: str) -> bool:
        """Whether a choice of vocabulary gives the tensor other rows than the family's own."""
        return any(view.changes(name) for view in self.views)


class LiveDeltas:
    """Merged minus family base, tensor by tensor. No two threads may work on one tensor at a time.

    known: what the profile says of a matrix.
    """

    def __init__(
        self, base: Checkpoint, experts: Sequence[Checkpoint], held: Resident, pictured: Collection[str],
        known: Callable[[str], MatrixFacts | None],
    ) -> None:  # fmt: skip
        self._base, self._experts, self._held, self._pictured = base, tuple(experts), held, set(pictured)
        self._known = known
        self._moved: dict[str, tuple[tuple[str, ...], tuple[Tensor, Factors]]] = {}  # by a choice of vocabulary

    def step(self, plan: Plan) -> Step:
        """Raises UserError E_FAMILY where a method on deltas gets other models than the family's."""
        views = tuple(model for model in plan.models if isinstance(model, View))
        if plan.space == "weights":
            return Step(plan, (), views)
        places = {expert.fingerprint: t for t, expert in reversed(list(enumerate(self._experts)))}
        base, *experts = (stored(model).fingerprint for model in plan.models)
        if base != self._base.fingerprint or any(expert not in places for expert in experts):
            raise UserError("E_FAMILY", "the recipe names models that are not the family on screen", where="models")
        step = Step(plan, tuple(places[expert] for expert in experts), views)
        return replace(step, peak=across_layers(plan, lambda tensor: self._family_of(step, tensor)[1]))

    def delta(self, step: Step, tensor: TensorPlan) -> Tensor | Fold:
        """Float32, or the fold that it is."""
        plan, place = step.plan, self._held.place(tensor.name)
        if tensor.held is not None:
            return onto(kept_tensor(plan, tensor), place).float() - self._family_of(step, tensor)[0].float()
        if plan.space == "weights":
            merged = merged_weights(plan, tensor, read_models(plan, tensor, place))
            return merged - self._held.read(tensor.name)[0].float()
        light = self._held.lean and plan.method.triplets and tensor.name in self._pictured and not tensor.excluded
        if light and is_plain(
            tensor.settings
        ):  # such a method looks at no base, and at entries only where no profile tells of them
            factors = self._held.matrix(tensor.name).select(step.order)
            return merged_delta(plan, tensor, torch.empty(tensor.shape, device="meta"), factors, step.peak)
        base, factors = self._family_of(step, tensor)
        keep = kept_inputs(plan, tensor)
        if place == "cpu" and keep and plan.method.blocks and not plan.method.random and is_plain(tensor.settings):
            return self._in_blocks(step, tensor, factors.select(keep).deltas, keep)
        return merged_delta(plan, tensor, base, factors, step.peak)

    def _in_blocks(self, step: Step, tensor: TensorPlan, deltas: Tensor, keep: list[int]) -> Tensor:
        """The same numbers as of the whole stack (T, *shape), by blocks that fit the CPU's cache."""
        method, settings = step.plan.method, method_settings(step.plan, tensor, keep)
        weights = torch.tensor([tensor.weights[t] for t in keep], dtype=deltas.dtype)
        facts = None if step.changed(tensor.name) else self._known(tensor.name)
        counts = tuple(facts.deltas[step.order[t]].magnitudes for t in keep) if facts else ()
        blocks = replace(whole(deltas, rows=method.blocks == "rows"), counts=counts)
        own = settings_by_block(method, blocks, settings)
        out = torch.empty(blocks.shape)
        for start, stop in blocks.spans():
            out[start:stop] = method(blocks.read(start, stop), weights, **own(start, stop))
        return out.view(tensor.shape)

    def weights(self, step: Step, tensor: TensorPlan, delta: Tensor | Fold) -> Tensor:
        """The merged tensor in its output dtype, on the CPU."""
        if self._held.lean and not step.changed(tensor.name):
            base = onto(self._base.read(tensor.name), self._held.place(tensor.name))
        else:
            base = self._family_of(step, tensor)[0]
        return (base.float() + dense(delta)).to(tensor.dtype).cpu()

    def _family_of(self, step: Step, tensor: TensorPlan) -> tuple[Tensor, Factors]:
        """The base's tensor and the deltas of the recipe's experts; rows that a vocabulary moves are its own."""
        if not step.changed(tensor.name):
            base, factors = self._held.read(tensor.name)
            return base, factors.select(step.order)
        key = (tensor.name, *(model.fingerprint for model in step.plan.models))
        if key != self._moved.get(tensor.name, (None,))[0]:
            self._moved[tensor.name] = (key, read_deltas(step.plan, tensor, self._held.place(tensor.name)))
        return self._moved[tensor.name][1]
