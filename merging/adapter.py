"""A LoRA adapter over the model it was trained from, read as one checkpoint; equal to PEFT's merge_and_unload.

A changed tensor is `W + scale B A` in float32, not rounded to the base's dtype; DoRA (arXiv 2402.09353, eq. 5) then
gives each output the length it learned. All others are the base's own.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from merging.adapter_changes import Change, find_changes
from merging.adapter_config import AdapterConfig
from merging.checkpoint import Checkpoint, Part, TensorInfo, is_finite, parts_of
from merging.errors import UserError, all_of
from merging.hub_cache import absent, commit_of
from merging.weight_files import find_adapter_weights
from merging.words import shown


@dataclass(frozen=True, eq=False, kw_only=True)
class AdapterCheckpoint(Checkpoint):
    """The whole model that base and adapter make; `folder` is the adapter's. `tensors` has the base's dtypes."""

    over: Checkpoint  # pyright: ignore[reportGeneralTypeIssues]  # always there, unlike in a whole model
    file: Checkpoint  # the adapter's own tensors
    changes: Mapping[str, Change]  # by the base's tensor

    def read(self, name: str) -> Tensor:
        """Float32 where the adapter changes it, since the base's dtype would lose bits; else as the base stores it."""
        change = self.changes.get(name)
        if change is None:
            return self.over.read(name)
        tensor = (self.file.read(change.whole) if change.whole else self.over.read(name)).float()
        if change.twin and not torch.equal(tensor, self.file.read(change.twin).float()):
            raise UserError("E_ADAPTER", "its embedding and its head differ, but the base ties them.",
                            where=self.source, do="Use a base whose head is a tensor of its own.")  # fmt: skip
        if change.b:
            b, a = self._factors(change)
            tensor = tensor + b @ a
        if change.shift:
            tensor = tensor + change.scale * self.file.read(change.shift).float()
        if change.magnitude:
            inputs = 0 if change.swap else 1
            length = self.file.read(change.magnitude).float() / torch.linalg.vector_norm(tensor, dim=inputs)
            tensor = tensor * length.unsqueeze(inputs)
        if change.tokens:
            tensor = tensor.index_copy(0, torch.tensor(change.rows), self.file.read(change.tokens).float())
        if not is_finite(tensor):
            raise UserError("E_NOT_FINITE", "base and adapter together give no finite numbers.",
                            where=f"{self.source}: {shown(name)[1:-1]}", do="Use an undamaged adapter.")  # fmt: skip
        return tensor

    def is_stored(self, name: str) -> bool:
        return name not in self.changes and self.over.is_stored(name)

    @contextmanager
    def parts(self, name: str) -> Iterator[Part]:
        if name in self.changes:
            yield parts_of(self.read(name))
        else:
            with self.over.parts(name) as part:
                yield part

    def low_rank(self, name: str) -> tuple[Tensor, Tensor] | None:
        """As of any checkpoint; of a matrix that the adapter leaves alone, factors of rank 0."""
        change, shape = self.changes.get(name), self.tensors[name].shape
        if change is None:
            return (torch.zeros(shape[0], 0), torch.zeros(0, shape[1])) if len(shape) == 2 else None
        pure = change.b and not (change.whole or change.magnitude or change.tokens)
        return self._factors(change) if pure else None

    def _factors(self, change: Change) -> tuple[Tensor, Tensor]:
        assert change.a
        assert change.b
        b, a = self.file.read(change.b).float(), self.file.read(change.a).float()
        return (a.T * change.scale, b.T) if change.swap else (b * change.scale, a)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the base's and the adapter's fingerprints and what the adapter's config makes of them."""
        changes = (f"{name} {self.changes[name]}" for name in sorted(self.changes))
        return hashlib.sha256("\0".join((self.over.fingerprint, self.file.fingerprint, *changes)).encode()).hexdigest()


def open_adapter(source: str, home: Path, config: AdapterConfig, over: Checkpoint) -> AdapterCheckpoint:
    """The adapter of a folder over the model `over`, from headers alone. Raises one error that lists every problem."""
    problems: list[UserError] = []
    missing, commit = absent(home), commit_of(home)
    places = find_adapter_weights(home, source, problems, missing.sizes if missing else {})
    infos = {name: TensorInfo(entry.shape, entry.dtype) for name, (_, entry) in places.items()}
    file = Checkpoint(source, home, {}, infos, (), places, commit=commit, absent=missing)
    changes = {} if problems else find_changes(file, config, over, problems)
    if problems:
        raise all_of(problems, kept="")
    return AdapterCheckpoint(source, home, over.config, over.tensors, over.notices,
                             commit=commit, absent=missing, over=over, file=file, changes=changes)  # fmt: skip
