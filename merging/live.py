"""The live merge: one family held in memory, and only what a slider move made stale computed again.

`move` yields the open matrix first, then all pictures, then the news that the merge is there by its folds, and at last
its weights. What is remembered lives in the `Factors` of each matrix; weights and scale reuse everything but a vector.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging import analysis
from merging.analysis import Conflict, Look, Matrix, MatrixView
from merging.checkpoint import Checkpoint
from merging.compute import (
    across_layers,
    kept_inputs,
    kept_tensor,
    merged_delta,
    merged_weights,
    read_deltas,
    read_models,
)
from merging.engine import one_thread_a_matrix
from merging.errors import UserError
from merging.facts import Profile
from merging.folded import Folded
from merging.live_events import FocusReady, FoldedReady, LiveEvent, LookReady, Stale, StateReady
from merging.measures import Crossed, Numbers, cross, numbers_of_delta, numbers_of_fold, pair_measures
from merging.plan import Plan, TensorPlan
from merging.resident import WHOLE, Resident, needed
from merging.shaping import is_plain
from merging.spectral import Factors, Fold
from merging.stale import stale
from merging.store import Store
from merging.view import View, stored


@dataclass(frozen=True)
class _Seen:
    """One matrix of one recipe: its picture, its measures, and its merged weights or what they unfold from."""

    view: MatrixView
    measures: dict[str, list[float]]  # measure -> one value a row
    merged: Tensor | Fold | None  # the weights in their output dtype, the fold that they are made of, or nothing yet


class LiveMerge:
    """Base and experts of one family in memory, with everything derived from them so far.

    folder: where profile and factors outlive the process; None keeps them in memory only.
    whole: bytes up to which a family is held whole (see `Resident`).
    """

    def __init__(
        self,
        base: Checkpoint,
        experts: Sequence[Checkpoint],
        names: Sequence[str],
        folder: Path | None = None,
        whole: int = WHOLE,
    ) -> None:
        self.base, self.experts = base, tuple(experts)
        self.family = analysis.family(names, {name: info.shape for name, info in base.tensors.items()})
        self._pictured = {matrix.name for matrix in self.family.matrices}
        self._profile = Profile(
            base, experts, sorted(self._pictured), None if folder is None else Store(folder / "profile")
        )
        self._crossed: dict[str, Crossed] = {}  # name -> cross terms of the fold seen last
        lean = needed([info.shape for info in base.tensors.values()], len(experts)) > whole
        store = None if folder is None else Store(folder / "factors")
        self._held = Resident(base, experts, store, lean=lean, base_norm=self._profile.base_norm)
        self._moved: dict[str, tuple[tuple[str, ...], tuple[Tensor, Factors]]] = {}  # by a choice of vocabulary
        self._states: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._folded: Folded | None = None  # of the latest move
        self._last: Plan | None = None
        self._pool = ThreadPoolExecutor(max(1, os.cpu_count() or 1))

    def move(self, plan: Plan, focus: str | None, cancelled: Callable[[], bool]) -> Iterator[LiveEvent]:
        """Follow a slider move: pictures first, the open matrix `focus` before the others, weights last.

        Ends early, without a word, once `cancelled()` says that a later move has come.
        """
        start = time.perf_counter()
        what, self._last = stale(self._last, plan), plan
        yield Stale(what, len(self.family.matrices))
        with one_thread_a_matrix():
            yield from self._pictures(plan, focus, cancelled, start)

    def _pictures(
        self, plan: Plan, focus: str | None, cancelled: Callable[[], bool], start: float
    ) -> Iterator[LiveEvent]:
        peak = self._across(plan)
        matrices = {matrix.name: matrix for matrix in self.family.matrices}
        seen: dict[str, _Seen] = {}
        if focus in matrices:
            seen[focus] = self._see(plan, matrices.pop(focus), peak)
            yield FocusReady(seen[focus].view, plan.digest, time.perf_counter() - start)
        for found in self._pool.map(lambda m: None if cancelled() else self._see(plan, m, peak), matrices.values()):
            if found is None:
                return
            seen[found.view.matrix.name] = found
        yield LookReady(self._look(plan, seen, time.perf_counter() - start))
        if cancelled():
            return
        merged = {name: one.merged for name, one in seen.items() if one.merged is not None}
        folds = {
            name: found
            for name, found in merged.items()
            if isinstance(found, Fold) and not self._changed(plan, plan.tensor(name))
        }
        state = self._written(plan, [t for t in plan.tensors if t.name not in folds], merged, peak, cancelled)
        if folds and not cancelled():
            self._folded = Folded(plan.digest, folds, dict(state))
            yield FoldedReady(plan.digest, time.perf_counter() - start)
        state |= self._written(plan, [t for t in plan.tensors if t.name in folds], merged, peak, cancelled)
        if cancelled():
            return
        self._keep(plan, state)
        self._held.trim()
        yield StateReady(plan.digest, time.perf_counter() - start)

    def state(self, plan: Plan) -> dict[str, Tensor]:
        """The merged weights by tensor name in their output dtypes; computed if no move has left them here."""
        if plan.digest not in self._states:
            with one_thread_a_matrix():
                self._keep(plan, self._written(plan, plan.tensors, {}, self._across(plan), lambda: False))
        return self._states[plan.digest]

    def written(self, plan: Plan) -> dict[str, Tensor] | None:
        """What `state` gives, where it has it at hand."""
        return self._states.get(plan.digest)

    def folded(self, plan: Plan) -> Folded | None:
        """The merge by its folds, where the latest move made any."""
        return self._folded if self._folded and self._folded.digest == plan.digest else None

    def _written(
        self, plan: Plan, tensors: Sequence[TensorPlan], seen: Mapping[str, Tensor | Fold], peak: Tensor | None,
        cancelled: Callable[[], bool],
    ) -> dict[str, Tensor]:  # fmt: skip
        """These tensors of the merge; not all of them once `cancelled()`."""

        def merged(tensor: TensorPlan) -> Tensor | None:
            if cancelled():
                return None
            if tensor.action == "copy" or tensor.held is not None:
                return kept_tensor(plan, tensor)
            if plan.space == "weights":  # the models themselves, so that no bit is lost through a difference
                return merged_weights(plan, tensor, read_models(plan, tensor)).to(tensor.dtype)
            found = seen.get(tensor.name)
            if found is None or isinstance(found, Fold):
                found = self._weights(plan, tensor, self._delta(plan, tensor, peak) if found is None else found)
            return found

        found = zip((t.name for t in tensors), self._pool.map(merged, tensors), strict=True)
        return {name: tensor for name, tensor in found if tensor is not None}

    def _keep(self, plan: Plan, state: dict[str, Tensor]) -> None:
        self._states[plan.digest] = {tensor.name: state[tensor.name] for tensor in plan.tensors}
        while len(self._states) > (1 if self._held.lean else 2):
            self._states.popitem(last=False)

    def _see(self, plan: Plan, matrix: Matrix, peak: Tensor | None) -> _Seen:
        tensor = plan.tensor(matrix.name)
        facts = self._profile.get(matrix.name)
        if facts is None:
            below, dense = self._held.read(matrix.name)
            facts = self._profile.learn(matrix.name, below, dense.deltas)
        factors = self._held.matrix(matrix.name)
        delta = self._delta(plan, tensor, peak)
        fold = delta if isinstance(delta, Fold) else None
        names = self.family.experts
        kept, weights = self._kept(plan, tensor, fold)
        merged = self._numbers(matrix.name, delta, factors.deltas)
        cuts = [factors.full_rank // len(names) if k is None else k for k in kept]
        parts = [factors.svd(t, cut) for t, cut in enumerate(cuts)]
        spectra = [
            factors.remember(("spectrum", t, kept[t]), partial(analysis.spectrum, name, factors.spectrum(t), kept[t]))
            for t, name in enumerate(names)
        ]
        spectra.append(analysis.spectrum("merge", merged.strengths, None))
        kappa, eta = tensor.settings.get("outlier_threshold", 3.0), tensor.settings.get("sparsity_threshold", 0.1)
        tails = [
            replace(
                factors.remember(
                    ("tail", t, kappa, eta), partial(facts.deltas[t].tail, name, facts.base_norm, kappa=kappa, eta=eta)
                ),
                outlier_weight=weights[t],
            )
            for t, name in enumerate(names)
        ]
        view = MatrixView(matrix, tuple(spectra), tuple(tails), fold.dropped if fold else 0)
        measures = pair_measures(facts, factors, parts, kept)
        measures["kept"] = merged.cosines([each.norm for each in facts.deltas])
        self._held.settle(matrix.name)
        ready = plan.space != "weights" and fold is None
        return _Seen(view, measures, self._weights(plan, tensor, delta) if ready else fold)

    def _numbers(self, name: str, delta: Tensor | Fold, deltas: Tensor) -> Numbers:
        """In closed form where the method orthogonalised the experts' triplets: such directions last many moves."""
        if not isinstance(delta, Fold):
            return numbers_of_delta(delta, deltas)
        if not delta.ranks:
            return numbers_of_delta(delta.dense(), deltas, delta.singular_values())
        crossed = self._crossed.get(name)
        if crossed is None or not crossed.fits(delta):
            crossed = self._crossed[name] = cross(delta, deltas)
        return numbers_of_fold(delta, crossed)

    def _kept(self, plan: Plan, tensor: TensorPlan, fold: Fold | None) -> tuple[list[int | None], list[float]]:
        """Per expert of the family: directions kept (None where the method does not cut) and mean outlier weight."""
        kept: list[int | None] = [None] * len(self.experts)
        weights = [1.0] * len(self.experts)
        if fold is None or not fold.ranks:
            return kept, weights
        present = kept_inputs(plan, tensor)
        order = self._order(plan)
        kept = [0] * len(self.experts)
        for i, t in enumerate(present):
            kept[order[t]] = fold.ranks[i]
            weights[order[t]] = fold.outlier_weights[i] if fold.outlier_weights else 1.0
        return kept, weights

    def _weights(self, plan: Plan, tensor: TensorPlan, delta: Tensor | Fold) -> Tensor:
        lean = self._held.lean and not self._changed(plan, tensor)
        base = self.base.read(tensor.name) if lean else self._family_of(plan, tensor)[0]
        return (base.float() + (delta.dense() if isinstance(delta, Fold) else delta)).to(tensor.dtype)

    def _delta(self, plan: Plan, tensor: TensorPlan, peak: Tensor | None) -> Tensor | Fold:
        """Merged minus family base, float32, or the fold that it is."""
        if tensor.held is not None:
            return kept_tensor(plan, tensor).float() - self._family_of(plan, tensor)[0].float()
        if plan.space == "weights":
            return merged_weights(plan, tensor, read_models(plan, tensor)) - self._held.read(tensor.name)[0].float()
        light = self._held.lean and plan.method.triplets and tensor.name in self._pictured and is_plain(tensor.settings)
        if light:  # such a method looks at no base, and at entries only where no profile tells of them
            factors = self._held.matrix(tensor.name).select(self._order(plan))
            return merged_delta(plan, tensor, torch.empty(tensor.shape, device="meta"), factors, peak)
        return merged_delta(plan, tensor, *self._family_of(plan, tensor), peak)

    def _order(self, plan: Plan) -> list[int]:
        """Where each of the plan's experts stands in this family."""
        places = {expert.fingerprint: t for t, expert in reversed(list(enumerate(self.experts)))}
        base, *experts = (stored(model).fingerprint for model in (plan.base, *plan.experts))
        if base != self.base.fingerprint or any(expert not in places for expert in experts):
            raise UserError("E_FAMILY", "the recipe names models that are not the family on screen", where="models")
        return [places[expert] for expert in experts]

    def _family_of(self, plan: Plan, tensor: TensorPlan) -> tuple[Tensor, Factors]:
        """The base's tensor and the deltas of the plan's experts; rows that a vocabulary moves are the plan's own."""
        if not self._changed(plan, tensor):
            base, factors = self._held.read(tensor.name)
            return base, factors.select(self._order(plan))
        key = (tensor.name, *(model.fingerprint for model in (plan.base, *plan.experts)))
        if key != self._moved.get(tensor.name, (None,))[0]:
            self._moved[tensor.name] = (key, read_deltas(plan, tensor))
        return self._moved[tensor.name][1]

    def _changed(self, plan: Plan, tensor: TensorPlan) -> bool:
        """Whether a choice of vocabulary gives it other rows than the family's own."""
        models = (plan.base, *plan.experts)
        return any(isinstance(model, View) and model.changes(tensor.name) for model in models)

    def _across(self, plan: Plan) -> Tensor | None:
        return across_layers(plan, lambda tensor: self._family_of(plan, tensor)[1])

    def _look(self, plan: Plan, seen: dict[str, _Seen], seconds: float) -> Look:
        family = self.family
        conflicts: dict[Any, Conflict] = {}
        for measure in ("sign", "cosine", "shared", "interference", "kept"):
            rows = tuple((name,) for name in family.experts) if measure == "kept" else family.pairs
            each = ((found.view.matrix, found.measures[measure]) for found in seen.values())
            values = analysis.gather(family, len(rows), each)
            conflicts[measure] = Conflict(measure, rows, values)
        views = {matrix.name: seen[matrix.name].view for matrix in family.matrices}
        return Look(plan.digest, family, conflicts, views, "exact", seconds)
