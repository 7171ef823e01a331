"""The live merge: one family held in memory, and only what a slider move made stale computed again.

`move` yields the open matrix first, then all pictures, then the news that the merged weights are there. What is
remembered lives in the `Factors` of each matrix; weights and scale reuse everything but a vector.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from merging import analysis
from merging.analysis import Conflict, Look, Matrix, MatrixView
from merging.checkpoint import Checkpoint
from merging.compute import (
    across_layers,
    delta_factors,
    expert_delta,
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
from merging.measures import Crossed, Numbers, cross, numbers_of_delta, numbers_of_fold, pair_measures
from merging.plan import Plan, TensorPlan
from merging.shaping import shared_knobs
from merging.spectral import Factors, Fold
from merging.store import Store
from merging.view import View, stored

What = Literal["nothing", "diagonal", "fold", "factors", "tensors"]


@dataclass(frozen=True)
class Stale:
    """What a move invalidates, before any work is done; "diagonal" is one vector a matrix."""

    what: What
    n_matrices: int


@dataclass(frozen=True)
class FocusReady:
    """The open matrix, ahead of the others."""

    view: MatrixView
    digest: str
    seconds: float


@dataclass(frozen=True)
class LookReady:
    look: Look


@dataclass(frozen=True)
class StateReady:
    """The merged weights of `digest` are in memory: chat answers with them."""

    digest: str
    seconds: float


LiveEvent = Stale | FocusReady | LookReady | StateReady


@dataclass(frozen=True)
class _Seen:
    """One matrix of one recipe: its picture, its measures, and its merged delta or what it unfolds from."""

    view: MatrixView
    measures: dict[str, list[float]]  # measure -> one value a row
    delta: Tensor | Fold


class LiveMerge:
    """Base and experts of one family in memory, with everything derived from them so far.

    folder: where the profile of the deltas outlives the process; None keeps it in memory only.
    """

    def __init__(
        self, base: Checkpoint, experts: Sequence[Checkpoint], names: Sequence[str], folder: Path | None = None
    ) -> None:
        self.base, self.experts = base, tuple(experts)
        self.family = analysis.family(names, {name: info.shape for name, info in base.tensors.items()})
        pictured = [matrix.name for matrix in self.family.matrices]
        self._profile = Profile(base, experts, pictured, None if folder is None else Store(folder / "profile"))
        self._crossed: dict[str, Crossed] = {}  # name -> cross terms of the fold seen last
        self._tensors: dict[str, tuple[Tensor, Factors]] = {}  # name -> base, deltas of all experts
        self._moved: dict[str, tuple[tuple[str, ...], tuple[Tensor, Factors]]] = {}  # by a choice of vocabulary
        self._states: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
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
        self._materialise(plan, {name: found.delta for name, found in seen.items()}, peak)
        yield StateReady(plan.digest, time.perf_counter() - start)

    def state(self, plan: Plan) -> dict[str, Tensor]:
        """The merged weights by tensor name in their output dtypes; computed if no move has left them here."""
        found = self._states.get(plan.digest)
        if found is None:
            with one_thread_a_matrix():
                found = self._materialise(plan, {}, self._across(plan))
        return found

    def _materialise(self, plan: Plan, deltas: dict[str, Tensor | Fold], peak: Tensor | None) -> dict[str, Tensor]:
        def merged(tensor: TensorPlan) -> Tensor:
            if tensor.action == "copy" or tensor.held is not None:
                return kept_tensor(plan, tensor)
            if plan.space == "weights":  # the models themselves, so that no bit is lost through a difference
                return merged_weights(plan, tensor, read_models(plan, tensor)).to(tensor.dtype)
            base = self._family_of(plan, tensor)[0]
            delta = deltas[tensor.name] if tensor.name in deltas else self._delta(plan, tensor, peak)
            return (base.float() + (delta.dense() if isinstance(delta, Fold) else delta)).to(tensor.dtype)

        state = dict(zip((t.name for t in plan.tensors), self._pool.map(merged, plan.tensors), strict=True))
        self._states[plan.digest] = state
        while len(self._states) > 2:
            self._states.popitem(last=False)
        return state

    def _see(self, plan: Plan, matrix: Matrix, peak: Tensor | None) -> _Seen:
        tensor = plan.tensor(matrix.name)
        base, factors = self._resident(matrix.name)
        facts = self._profile.learn(matrix.name, base, factors.deltas)
        delta = self._delta(plan, tensor, peak)
        fold = delta if isinstance(delta, Fold) else None
        names = self.family.experts
        kept, weights = self._kept(plan, tensor, fold)
        merged = self._numbers(matrix.name, delta, factors.deltas)
        cuts = [factors.full_rank // len(names) if k is None else k for k in kept]
        parts = [factors.svd(t, cut) for t, cut in enumerate(cuts)]
        spectra = [
            factors.remember(
                ("spectrum", t, kept[t]), partial(analysis.spectrum, name, factors.spectrum(t), kept[t])
            )
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
        return _Seen(view, measures, delta)

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

    def _delta(self, plan: Plan, tensor: TensorPlan, peak: Tensor | None) -> Tensor | Fold:
        """Merged minus family base, float32, or the fold that it is."""
        if tensor.held is not None:
            base = self._family_of(plan, tensor)[0]
            return kept_tensor(plan, tensor).float() - base.float()
        if plan.space == "weights":
            base = self._resident(tensor.name)[0]
            return merged_weights(plan, tensor, read_models(plan, tensor)) - base.float()
        base, factors = self._family_of(plan, tensor)
        return merged_delta(plan, tensor, base, factors, peak)

    def _order(self, plan: Plan) -> list[int]:
        """Where each of the plan's experts stands in this family."""
        places = {expert.fingerprint: t for t, expert in reversed(list(enumerate(self.experts)))}
        base, *experts = (stored(model).fingerprint for model in (plan.base, *plan.experts))
        if base != self.base.fingerprint or any(expert not in places for expert in experts):
            raise UserError("E_FAMILY", "the recipe names models that are not the family on screen", where="models")
        return [places[expert] for expert in experts]

    def _family_of(self, plan: Plan, tensor: TensorPlan) -> tuple[Tensor, Factors]:
        """The base's tensor and the deltas of the plan's experts; rows that a vocabulary moves are the plan's own."""
        order = self._order(plan)
        models = (plan.base, *plan.experts)
        if not any(isinstance(model, View) and model.changes(tensor.name) for model in models):
            base, factors = self._resident(tensor.name)
            return base, factors.select(order)
        key = (tensor.name, *(model.fingerprint for model in models))
        if key != self._moved.get(tensor.name, (None,))[0]:
            self._moved[tensor.name] = (key, read_deltas(plan, tensor))
        return self._moved[tensor.name][1]

    def _resident(self, name: str) -> tuple[Tensor, Factors]:
        if name not in self._tensors:
            base = self.base.read(name)
            parts = [expert_delta(expert, name, self.base, name, base) for expert in self.experts]
            factors = delta_factors(base, parts)
            ahead = factors.full_rank // len(parts)  # where the rank slider ends
            self._tensors[name] = (base, replace(factors, ahead=ahead))
        return self._tensors[name]

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


def stale(old: Plan | None, new: Plan) -> What:
    """What the step from one plan to the next invalidates: a pure function of the two plans' settings."""
    if old is not None and old.digest == new.digest:
        return "nothing"
    if old is None or old.method is not new.method or not new.method.spectral:
        return "tensors"
    if [e.fingerprint for e in old.experts] != [e.fingerprint for e in new.experts]:
        return "factors"
    found: set[What] = {"diagonal"}
    for before, after in zip(old.tensors, new.tensors, strict=True):
        if [w == 0 for w in before.weights] != [w == 0 for w in after.weights]:
            found.add("fold")
        knobs = (*new.method.knobs, *shared_knobs(new.method, new.recipe.base))
        found |= {k.moves for k in knobs if before.settings.get(k.key) != after.settings.get(k.key)}
    return "factors" if "factors" in found else "fold" if "fold" in found else "diagonal"
