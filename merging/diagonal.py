"""A move that leaves the directions of every fold as they are: the numbers of all matrices at once.

Of a fold `U diag(x) V^T` weights, the scale and the outlier rules of whole experts change x alone: each expert's
singular values times one number (its method's `scales`). Norms, cosines and spectra of the merge follow from the x of
all matrices, the rows of one array. One matrix after the other, Python takes longer than the numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest

import numpy as np
import torch

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

SHOWN = ("outlier_threshold", "sparsity_threshold")  # settings that pictures tell of beside what is merged

Scales = tuple[list[float], tuple[float, ...]]  # of each expert's singular values; mean weights of its entries


@dataclass(frozen=True)
class Known:
    """One matrix as the move left it that made its fold. factors: of the experts merged, at these places in the family.

    along: where their outputs were measured.
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
        """Whether the same models meet in it, and the pictures tell of it at the same thresholds."""
        before, now = self.tensor, tensor
        if (before.inputs, before.held, before.excluded) != (now.inputs, now.held, now.excluded):
            return False
        return all(before.settings.get(key) == now.settings.get(key) for key in SHOWN)

    def seen_with(self, merged: Spectrum, cosines: list[float], x: np.ndarray, means: tuple[float, ...]) -> Seen:
        view, measures, tails = self.seen.view, {**self.seen.measures, "kept": cosines}, self.seen.view.tails
        if self.along:
            measures["output"] = kept_by_fold(torch.from_numpy(x), self.along)
        if means != self.fold.outlier_weights:
            weights = dict(zip(self.places, means, strict=True))
            tails = tuple(replace(tail, outlier_weight=weights.get(t, 1.0)) for t, tail in enumerate(tails))
        return Seen(replace(view, spectra=(*view.spectra[:-1], merged), tails=tails), measures)


class Diagonal:
    """The matrices of one move whose folds are closed (no `core`), for the moves that follow."""

    def __init__(
        self, step: Step, seen: Mapping[str, Seen], merged: Mapping[str, Merged], pictures: Pictures, held: Resident
    ) -> None:
        self._calibration, self._known = step.plan.calibration, list[Known]()
        strengths, inner, norms = [], [], []
        for name, fold in merged.items():
            tensor = step.plan.tensor(name)
            if not isinstance(fold, Fold) or fold.strengths is None or fold.core or not is_plain(tensor.settings):
                continue
            places = tuple(step.order[t] for t in kept_inputs(step.plan, tensor))
            factors, along = held.matrix(name), pictures.along(step, name, fold)
            self._known.append(Known(tensor, seen[name], fold, factors.select(places), places, along))
            strengths.append(fold.strengths.cpu().numpy())
            inner.append(pictures.crossed(factors, fold).inner.cpu().numpy())
            norms.append([delta.norm for delta in pictures.facts(name).deltas])
        ranks = [each.fold.ranks for each in self._known]
        self._strengths = _rows(strengths)
        self._owner = _rows([np.repeat(np.arange(len(own)), own) for own in ranks])
        self._inner, self._norms = _rows(inner), np.array(norms)

    def move(self, plan: Plan) -> "Moved | None":
        """The matrices in a plan that changes no fold's directions (`stale`); None where it cannot tell of all."""
        tensors = [plan.tensor(known.tensor.name) for known in self._known]
        follow = all(known.follows(tensor) for known, tensor in zip(self._known, tensors, strict=True))
        if plan.calibration != self._calibration or not self._known or not follow:
            return None
        rounded = cache(lambda weights: torch.tensor(weights, dtype=torch.float32).tolist())  # as methods get them
        found = [_scales(plan, *each, rounded) for each in zip(self._known, tensors, strict=True)]
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
    assert plan.method.scales
    return plan.method.scales(known.factors, weights, **method_settings(plan, tensor, keep))


def _rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One array of arrays that differ in their last axis, filled up with 0."""
    width = max((array.shape[-1] for array in arrays), default=0)
    out = np.zeros((len(arrays), *(arrays[0].shape[:-1] if arrays else ()), width), arrays[0].dtype if arrays else None)
    for row, array in zip(out, arrays, strict=True):
        row[..., : array.shape[-1]] = array
    return out
