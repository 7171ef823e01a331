"""A move that leaves the directions of every fold as they are: the numbers of all matrices at once.

Of a fold `U diag(x) V^T` weights, the scale and how firmly whole experts are held down change x alone: each expert's
singular values times one number (its method's `diagonal`). Norms, cosines and spectra of the merge follow from the x of
all matrices, the rows of one array. One matrix after the other, Python takes longer than the numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from typing import cast

import numpy as np
import torch
from torch import Tensor

from merging.analysis import concentration
from merging.compute import kept_inputs, method_settings
from merging.live_deltas import Step
from merging.live_pictures import Pictures, Seen
from merging.live_weights import Merged
from merging.look import Spectrum
from merging.outputs import Along, kept_by_fold
from merging.plan import Plan
from merging.resident import Resident
from merging.shaping import is_plain
from merging.spectral import Factors, Fold
from merging.tensor_plan import TensorPlan

FREE = ("lambda", "outlier_strength")  # what may change beside weights; no entry has to be read for them

Scales = tuple[list[float], tuple[float, ...]]  # of each expert's singular values; mean weights of its entries


@dataclass(frozen=True)
class Known:
    """One matrix as an earlier move left it.

    factors: of the experts merged, which are those at `places` in the family; their entries are read where they are
    asked for. along: where their outputs were measured.
    """

    tensor: TensorPlan
    seen: Seen
    fold: Fold
    factors: Factors
    places: tuple[int, ...]
    along: Along | None

    @property
    def many(self) -> int:
        return sum(self.fold.ranks)

    def follows(self, tensor: TensorPlan) -> bool:
        """Whether nothing else has changed about it."""
        if (self.tensor.inputs, self.tensor.held) != (tensor.inputs, tensor.held):
            return False
        return all(value == tensor.settings[key] for key, value in self.tensor.settings.items() if key not in FREE)

    def seen_with(self, merged: Spectrum, cosines: list[float], x: np.ndarray, means: tuple[float, ...]) -> Seen:
        view, measures, tails = self.seen.view, {**self.seen.measures, "kept": cosines}, self.seen.view.tails
        if self.along:
            measures["output"] = kept_by_fold(torch.from_numpy(x), self.along)
        if means != self.fold.outlier_weights:
            weights = dict(zip(self.places, means, strict=True))
            tails = tuple(replace(tail, outlier_weight=weights.get(t, 1.0)) for t, tail in enumerate(tails))
        return Seen(replace(view, spectra=(*view.spectra[:-1], merged), tails=tails), measures)


def renewed(
    known: "Diagonal | None", step: Step, seen: Mapping[str, Seen], merged: Mapping[str, Merged], pictures: Pictures,
    held: Resident,
) -> "Diagonal | None":  # fmt: skip
    """What the next moves follow from: `known` where it has all matrices of this move that have closed folds (no
    `core`), else a new one. None of a method without `diagonal`.
    """
    if step.plan.method.diagonal is None:
        return None
    folds = {name: fold for name, fold in merged.items() if isinstance(fold, Fold) and not fold.core}
    plain = {name: fold for name, fold in folds.items() if is_plain(step.plan.tensor(name).settings)}
    return known if known and known.names >= plain.keys() else Diagonal(step, seen, plain, pictures, held)


class Diagonal:
    """The matrices of one move with closed folds that the method itself made, for the moves that follow."""

    def __init__(
        self, step: Step, seen: Mapping[str, Seen], folds: Mapping[str, Fold], pictures: Pictures, held: Resident
    ) -> None:
        self._calibration, self._held, self._known = step.plan.calibration, held, list[Known]()
        self.names = frozenset(folds)
        strengths, inner, norms = [], [], []
        for name, fold in folds.items():
            assert fold.strengths is not None
            tensor = step.plan.tensor(name)
            places = tuple(step.order[t] for t in kept_inputs(step.plan, tensor))
            factors, along = held.matrix(name), pictures.along(step, name, fold)
            lazy = replace(factors, deltas=cast("Tensor", Picked(factors.deltas, range(len(factors.deltas)))))
            self._known.append(Known(tensor, seen[name], fold, lazy.select(places), places, along))
            strengths.append(fold.strengths.cpu().numpy())
            inner.append(pictures.crossed(factors, fold).inner.cpu().numpy())
            norms.append([delta.norm for delta in pictures.facts(name).deltas])
        ranks = [each.fold.ranks for each in self._known]
        self._strengths = _rows(strengths)
        self._owner = _rows([np.repeat(np.arange(len(own)), own) for own in ranks])
        self._inner, self._norms = _rows(inner), np.array(norms)

    def move(self, plan: Plan, focus: str | None) -> "Moved | None":
        """The matrices in a plan that changes no fold's directions (`stale`); None where it cannot tell of all.

        Of a large family it lets go what an earlier focus held, as any move does (`Resident.settle`).
        """
        tensors = [plan.tensor(known.tensor.name) for known in self._known]
        follow = all(known.follows(tensor) for known, tensor in zip(self._known, tensors, strict=True))
        if plan.calibration != self._calibration or not self._known or not follow:
            return None
        rounded = cache(lambda weights: torch.tensor(weights, dtype=torch.float32).tolist())  # as methods get them
        found = []
        for known, tensor in zip(self._known, tensors, strict=True):
            found.append(_scales(plan, known, tensor, rounded))
            self._held.settle(tensor.name, shown=tensor.name == focus)
        scales, means = zip(*found, strict=True)
        each = np.array([*zip_longest(*scales, fillvalue=0.0)], np.float32).T
        x = self._strengths * np.take_along_axis(each, self._owner, 1)
        size, wide = -np.sort(-np.abs(x)), x.astype(np.float64)
        lengths = np.sqrt(np.square(wide).sum(1))[:, None] * self._norms
        along = np.matmul(self._inner, wide[:, :, None])[:, :, 0]
        cosines = np.divide(along, lengths, out=np.full_like(along, np.nan), where=lengths > 0).tolist()
        stable, half = (column.tolist() for column in concentration(size))
        seen = {}
        for i, known in enumerate(self._known):
            many = known.many
            merged = Spectrum("merge", size[i, :many], None, stable[i], half[i])
            seen[known.tensor.name] = known.seen_with(merged, cosines[i], x[i, :many], means[i])
        return Moved(self._known, seen, x, means)


@dataclass(frozen=True)
class Moved:
    """What a move made of the matrices: their pictures at once, their folds when they are asked for."""

    known: Sequence[Known]
    seen: Mapping[str, Seen]
    x: np.ndarray
    means: Sequence[tuple[float, ...]]

    def folds(self) -> dict[str, Fold]:
        each = zip(self.known, map(torch.from_numpy, self.x), self.means, strict=True)
        return {
            known.tensor.name: replace(known.fold, x=x[: known.many].to(known.fold.x.device), outlier_weights=means)
            for known, x, means in each
        }


def _scales(
    plan: Plan, known: Known, tensor: TensorPlan, rounded: Callable[[tuple[float, ...]], list[float]]
) -> Scales:
    keep = kept_inputs(plan, tensor)
    weights = rounded(tuple(tensor.weights[t] for t in keep))
    assert plan.method.diagonal
    return plan.method.diagonal(known.factors, weights, **method_settings(plan, tensor, keep))


@dataclass(frozen=True)
class Picked:
    """Some of a stack of deltas, one at a time: a choice among them is no copy."""

    deltas: Tensor
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, t: int | list[int]) -> "Tensor | Picked":
        return self.deltas[self.places[t]] if isinstance(t, int) else Picked(self.deltas, [self.places[i] for i in t])


def _rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One array of arrays that differ in their last axis, filled up with 0."""
    width = max((array.shape[-1] for array in arrays), default=0)
    out = np.zeros((len(arrays), *(arrays[0].shape[:-1] if arrays else ()), width), arrays[0].dtype if arrays else None)
    for row, array in zip(out, arrays, strict=True):
        row[..., : array.shape[-1]] = array
    return out
