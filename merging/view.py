"""A model seen under the merge's names and vocabulary: its rows in the output's order, a tied head lent or left out."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from merging.checkpoint import DTYPES, Checkpoint, Part, parts_of
from merging.ops import column


@dataclass(frozen=True, eq=False)
class Rows:
    """What each row of the output's embedding is in one model's: an own row, or the mean of other models' rows.

    `own` (n,) int64 has -1 where the model lacks the row; `filled` says what stands there then, zeros where it names
    nobody. Rows from `spare` on are padding: the mean of the first `spare_of[1]` rows of `spare_of[0]`.
    """

    own: Tensor
    filled: Mapping[int, tuple[tuple[int, int], ...]]  # row -> (donor, its row)
    donors: tuple[Checkpoint, ...]
    spare: int
    spare_of: tuple[Checkpoint, int]
    dtype: str  # what fillings are rounded to, so that all models get the same numbers

    @cached_property
    def digest(self) -> str:
        fills = [self.spare, self.spare_of[0].fingerprint, self.spare_of[1], self.dtype, sorted(self.filled.items())]
        fills.append([donor.fingerprint for donor in self.donors] if self.filled else [])
        return hashlib.sha256(self.own.numpy().tobytes() + repr(fills).encode()).hexdigest()

    def take(self, own: Tensor, name: str) -> Tensor:
        """The output's rows (n, ...) of tensor `name`, of which `own` is this model's."""
        there = self.own >= 0
        out = torch.zeros((len(self.own), *own.shape[1:]), dtype=torch.float32)
        for number, donor in enumerate(self.donors):
            parts = [(row, theirs, 1 / len(whose)) for row, whose in self.filled.items()
                     for donor_number, theirs in whose if donor_number == number]  # fmt: skip
            if parts:
                rows, theirs, shares = (torch.tensor(column) for column in zip(*parts, strict=True))
                data = donor.read(name)[theirs].float()
                out.index_add_(0, rows, data * column(shares, data))
        if self.spare < len(self.own):
            model, n = self.spare_of
            out[self.spare :] = model.read(name)[:n].float().mean(0)
        out = out.to(DTYPES[self.dtype]).to(torch.promote_types(DTYPES[self.dtype], own.dtype))
        out[there] = own[self.own[there]].to(out.dtype)
        return out


@dataclass(frozen=True, eq=False)
class View(Checkpoint):
    """`model` with other tensors in front: `names` says what it calls each one, `rows` where vocabulary rows lie."""

    model: Checkpoint = field(kw_only=True)
    names: Mapping[str, str] = field(kw_only=True)
    rows: Rows | None = field(kw_only=True)
    vocabulary: frozenset[str] = field(kw_only=True)  # names of the tensors with one row a token

    def read(self, name: str) -> Tensor:
        tensor = self.model.read(self.names[name])
        if self.rows is None or name not in self.vocabulary:
            return tensor
        return self.rows.take(tensor, name).to(DTYPES[self.tensors[name].dtype])

    def is_stored(self, name: str) -> bool:
        moved = self.rows is not None and name in self.vocabulary
        return not moved and self.model.is_stored(self.names[name])

    @contextmanager
    def parts(self, name: str) -> Iterator[Part]:
        if self.rows is not None and name in self.vocabulary:
            yield parts_of(self.read(name))
        else:
            with self.model.parts(self.names[name]) as part:
                yield part

    def placed(self, row: int) -> int | None:
        """Where the merge has a row of this model."""
        if self.rows is None:
            return row
        found = (self.rows.own == row).nonzero()
        return int(found[0]) if len(found) else None

    def low_rank(self, name: str) -> tuple[Tensor, Tensor] | None:
        return None if self.changes(name) else self.model.low_rank(name)

    def changes(self, name: str) -> bool:
        return self.names[name] != name or (self.rows is not None and name in self.vocabulary)

    @cached_property
    def fingerprint(self) -> str:
        other = sorted((here, there) for here, there in self.names.items() if here != there)
        left_out = sorted(set(self.model.tensors) - set(self.names.values()))
        text = [self.model.fingerprint, other, left_out, self.rows.digest if self.rows else ""]
        return hashlib.sha256(repr(text).encode()).hexdigest()


def stored(model: Checkpoint) -> Checkpoint:
    """The model as it lies in its folder."""
    return stored(model.model) if isinstance(model, View) else model
