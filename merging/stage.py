"""A merge that feeds a merge: a model whose tensors are computed when they are read, as if it lay in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from torch import Tensor

from merging.checkpoint import NAMES, Checkpoint, Part, TensorInfo, bytes_to_download, is_finite, parts_of
from merging.compute import across_layers, read_deltas
from merging.errors import UserError
from merging.pieces import merged_tensor
from merging.recipe import Expert, Recipe
from merging.view import stored

if TYPE_CHECKING:
    from merging.plan import Plan


@dataclass(frozen=True, eq=False)
class Stage(Checkpoint):
    """The merge of `plan`, in its output dtype; config and tokenizer are its base's."""

    plan: Plan = field(kw_only=True)
    once: Lock = field(default_factory=Lock, kw_only=True)

    def read(self, name: str) -> Tensor:
        with self.once:
            peak = self._peak
        tensor = merged_tensor(self.plan, self.plan.tensor(name), peak)
        if not is_finite(tensor):
            raise UserError("E_NOT_FINITE", f"merged weights are too large for {NAMES[tensor.dtype]}",
                            where=f"{self.source}: {name}", kept="Nothing was written.",
                            do="Lower the weights, or write another `dtype`.")  # fmt: skip
        return tensor

    def is_stored(self, name: str) -> bool:
        return False

    @contextmanager
    def parts(self, name: str) -> Iterator[Part]:
        yield parts_of(self.read(name))

    @cached_property
    def _peak(self) -> Tensor | None:
        return across_layers(self.plan, lambda tensor: read_deltas(self.plan, tensor)[1])

    @cached_property
    def fingerprint(self) -> str:
        return self.plan.digest

    @property
    def bytes_to_download(self) -> int:
        return bytes_to_download(leaves(self))


def stage(plan: Plan) -> Stage:
    """The merge of a plan as a model; its name is its recipe's."""
    tensors = {tensor.name: TensorInfo(tensor.shape, NAMES[tensor.dtype]) for tensor in plan.tensors}
    base = stored(plan.base)
    return Stage(plan.recipe.name, base.folder, dict(plan.config), tensors, over=None, plan=plan)


def leaves(*models: Checkpoint) -> tuple[Checkpoint, ...]:
    """The models that lie in folders, behind views and stages, each once."""
    return tuple(model for model in _behind(models) if not isinstance(model, Stage))


def stages_of(plan: Plan) -> tuple[Stage, ...]:
    """The merges that feed the plan's, and those that feed these, each once."""
    return tuple(model for model in _behind(plan.models) if isinstance(model, Stage))


def _behind(models: Iterable[Checkpoint]) -> Iterable[Checkpoint]:
    """The models as they are stored, each once, a stage before those that it merges."""
    found: dict[int, Checkpoint] = {}
    for model in map(stored, models):
        below = _behind(model.plan.models) if isinstance(model, Stage) else ()
        found |= {id(one): one for one in (model, *below)}
    return found.values()


def names_in(model: Checkpoint) -> list[str]:
    """The name of an expert; of a stage those of the experts that it merges."""
    below = stored(model)
    if isinstance(below, Stage):
        return [name for expert in below.plan.experts for name in names_in(expert)]
    return [Expert(below.source).name]


def without_idle(recipe: Recipe) -> Recipe:
    """The recipe without the stages that nothing in it uses any more."""

    def used(one: Recipe) -> set[str | None]:
        return {one.base, one.tokenizer_source, *(expert.model for expert in one.experts)}

    needed, kept = used(recipe), list[Recipe]()
    for one in reversed(recipe.stages):  # each stands after those that it uses
        if one.name in needed:
            needed |= used(one)
            kept.insert(0, one)
    return replace(recipe, stages=tuple(kept))


def stage_problems(recipe: Recipe) -> Iterator[UserError]:
    """What a stage cannot have, because it keeps the tokenizer of its base."""
    if recipe.chat_template:
        yield UserError("E_STAGE", "a merge that feeds another has no template of its own", where="chat_template",
                        do="Write it into the last merge.")  # fmt: skip
    choice = recipe.vocabulary
    if choice and (choice.source != "base" or choice.tokens or choice.pad_to_multiple_of):
        yield UserError("E_STAGE", "a merge that feeds another keeps its base's tokenizer", where="tokenizer",
                        do="Write it into the last merge.")  # fmt: skip
