"""The live merge: one family held in memory; a slider move computes again only what it made stale.

`move` yields the open matrix first, then all pictures, then the news that the merge is there by its folds, and at last
that its weights are. A new family that is too large to hold whole gets rough pictures before the exact ones: maps from
a sample of the entries, then pictures from sketches. What is remembered lives in the `Factors` of each matrix; a change
of weights or scale reuses all of it but one vector for each matrix.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from merging.ahead import stops
from merging.checkpoint import Checkpoint
from merging.cores import cores
from merging.decompose import SVD
from merging.diagonal import Diagonal, renewed
from merging.engine import one_thread_a_matrix
from merging.facts import Profile
from merging.fit import Outputs
from merging.folded import Folded
from merging.live_deltas import LiveDeltas, Step
from merging.live_events import FocusReady, FoldedReady, LiveEvent, LookReady, SampleReady, Stale, StateReady
from merging.live_outputs import put_out
from merging.live_pictures import Pictures, Seen
from merging.live_sketch import Sketches
from merging.live_weights import Merged, weights_of
from merging.look import Matrix, MatrixView, family_of
from merging.plan import Plan, make_plan
from merging.recipe import Recipe
from merging.resident import BUDGET, WHOLE, Resident, folds_bytes, needed, room_for, stops_for
from merging.sample import Sample
from merging.spectral import Fold
from merging.stale import stale
from merging.store import Store
from merging.tensor_plan import TensorPlan

T = TypeVar("T")


class LiveMerge:
    """Base and experts of one family in memory, with everything derived from them so far.

    folder: where profile and factors outlive the process; None keeps them in memory only.
    whole: bytes up to which a family is held whole (see `Resident`). budget: what the factors of a larger one may take,
    as a share of a model's bytes; its pictures then keep to the rank that fits, and `Look.limit` says so.
    device: where it is computed. The pictures' numbers, merged weights and what is kept on disk come to host memory.
    """

    def __init__(
        self,
        base: Checkpoint,
        experts: Sequence[Checkpoint],
        names: Sequence[str],
        folder: Path | None = None,
        whole: int = WHOLE,
        budget: float = BUDGET,
        device: str = "cpu",
    ) -> None:
        self.family = family_of(names, base.shapes)
        pictured = sorted(matrix.name for matrix in self.family.matrices)
        profile = Profile(base, experts, pictured, None if folder is None else Store(folder / "profile"))
        need = needed([info.shape for info in base.tensors.values()], len(experts))
        lean = need > whole
        store = None if folder is None else Store(folder / "factors")
        shapes = [matrix.shape for matrix in self.family.matrices]
        share, room = room_for(base, shapes, budget), stops_for(shapes)
        self.n_bytes = folds_bytes(shapes, share) if lean else need + folds_bytes(shapes, room)  # held between moves
        self._held = Resident(
            base, experts, store, lean=lean, share=share, base_norm=profile.base_norm, stops=room, device=device
        )
        self._deltas = LiveDeltas(base, experts, self._held, pictured, profile.get)
        self._pictures = Pictures(self.family, profile, self._held)
        new = lean and len(experts) > 1 and not profile.whole and all(model.places for model in (base, *experts))
        self._sample = Sample(self.family, base, experts) if new else None  # until the first exact look
        drafts = None if folder is None else folder / "sketches"
        self._sketches = Sketches(self.family, base, experts, profile, share, drafts, device)
        self._states: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._folded: Folded | None = None  # of the latest move
        self._diagonal: Diagonal | None = None  # of the move that made the folds
        self._last: Plan | None = None
        self._shown: Plan | None = None  # whose folds are there whole: not those of a move that was cut short
        self._focus: str | None = None
        self._next: tuple[Recipe, ...] = ()  # where the rank slider may go from here
        self._ready: deque[Recipe] = deque(maxlen=room)  # where it need not fold any more
        self._pool = ThreadPoolExecutor(cores() if device == "cpu" else 2)  # on a device one reads for the other

    @property
    def held(self) -> Resident:
        """What of the family is in memory, and up to which rank."""
        return self._held

    def move(
        self, plan: Plan, focus: str | None, cancelled: Callable[[], bool], *, outputs: bool = True,
        rest: Callable[[], object] = lambda: None,
    ) -> Iterator[LiveEvent]:  # fmt: skip
        """Follow a slider move: pictures first, the open matrix `focus` before the others, weights last.

        Without `outputs` the look has that picture only where it takes no pass over the matrices. A large family's
        weights take long: before them it calls `rest`, which may wait for a later move.

        Ends early, without a word, once `cancelled()` says that a later move has come.
        """
        start = time.perf_counter()

        def seconds() -> float:
            return time.perf_counter() - start

        what = stale(self._shown, plan)
        self._next = tuple(islice(stops(self._last, plan, everywhere=not self._held.lean), self._held.stops - 1))
        self._last, self._focus = plan, focus
        if what not in ("nothing", "diagonal"):
            self._folded = self._diagonal = self._shown = None  # or the folds of two moves would be held at a time
        yield Stale(what)
        with one_thread_a_matrix():
            step = replace(self._deltas.step(plan), outputs=outputs)
            if step.peak is not None:  # it takes all matrices before the first: too long for idle time
                self._next = ()
            matrices = {matrix.name: matrix for matrix in self.family.matrices}
            if sample := self._sample:
                if self._each(sample.learn, matrices.values(), cancelled) is None or cancelled():
                    return
                first = sample.look(plan.digest, seconds())
                focus = self._focus = first.opened(focus).name  # what the page opens on it
                yield SampleReady(first)
            seen: dict[str, Seen] = {}
            merged: dict[str, Merged] = {}
            if moved := self._diagonal and self._diagonal.move(plan, focus):
                seen |= moved.seen
                matrices = {name: matrix for name, matrix in matrices.items() if name not in seen}
            if focus in seen:
                yield FocusReady(seen[focus].view, plan.digest, seconds())
            rough = self._sketches.wanted(plan, self._held)
            if focus in rough:
                yield FocusReady(self._sketches.view(step, matrices[focus]), plan.digest, seconds())
            if focus in matrices:
                delta, view = self._merge(step, matrices[focus])
                yield FocusReady(view, plan.digest, seconds())
                seen[focus], merged[focus] = self._measure(step, matrices.pop(focus), delta, view)
            if self._sample:  # the exact maps need no factor
                known = self._each(lambda m: self._pictures.facts(m.name), matrices.values(), cancelled)
                if known is None or cancelled():
                    return
                yield SampleReady(self._pictures.maps(plan.digest, seconds()))
            if rough & matrices.keys():
                sketched = self._each(partial(self._sketches.see, step), matrices.values(), cancelled)
                if sketched is None:
                    return
                yield SampleReady(self._sketches.look(step, seen | sketched, seconds()))
            little = plan.method.triplets and what in ("nothing", "diagonal")  # less than a thread's errand costs
            found = self._each(partial(self._see, step), matrices.values(), cancelled, threads=not little)
            if found is None or cancelled():
                return
            for name, one in found.items():
                seen[name], merged[name] = one
            self._sample, self._shown = None, plan
            self._sketches.forget()  # also those of an earlier move that was cancelled among them
            yield LookReady(self._pictures.look(step, seen, seconds()))
            merged |= moved.folds() if moved else {}
            known = self._diagonal if moved else None
            self._diagonal = renewed(known, step, seen, merged, self._pictures, self._held)
            if self._held.lean:
                rest()
            yield from self._weights(step, merged, cancelled, seconds)

    def _each(
        self, work: Callable[[Matrix], T], matrices: Iterable[Matrix], cancelled: Callable[[], bool], *,
        threads: bool = True,
    ) -> dict[str, T] | None:  # fmt: skip
        """What `work` makes of each matrix, by name; many side by side where `threads`. None once `cancelled()`."""
        made: dict[str, T] = {}
        each = self._pool.map if threads else map
        for one in each(lambda m: None if cancelled() else (m.name, work(m)), matrices):
            if one is None:
                return None
            made[one[0]] = one[1]
        return made

    def _weights(
        self, step: Step, merged: Mapping[str, Merged], cancelled: Callable[[], bool], seconds: Callable[[], float]
    ) -> Iterator[LiveEvent]:
        """What follows the pictures: chat by the folds, if there are any, and then by the weights."""
        if cancelled():
            return
        self._held.trim()
        digest = step.plan.digest
        folds = {name: fold for name, fold in merged.items() if isinstance(fold, Fold) and not step.changed(name)}
        state = self._written(step, [t for t in step.plan.tensors if t.name not in folds], merged, cancelled)
        if folds and not cancelled():
            self._folded = Folded(digest, folds, dict(state))
            yield FoldedReady(digest, seconds())
        state |= self._written(step, [t for t in step.plan.tensors if t.name in folds], merged, cancelled)
        if cancelled():
            return
        self._keep(step.plan, state)
        self._held.trim()
        yield StateReady(digest, seconds())

    def prepare(self, stopped: Callable[[], bool]) -> Iterator[str]:
        """For idle time: what a rank slider's next stops need of each matrix, the open one first; yields its names.

        Of a family that is not held whole the open one alone: folds of all would take several times their budget.
        """
        opened = [matrix for matrix in self.family.matrices if matrix.name == self._focus]
        others = [matrix for matrix in self.family.matrices if matrix not in opened and not self._held.lean]
        with one_thread_a_matrix():
            for recipe in self._next:
                if recipe in self._ready:
                    continue
                step = replace(self._deltas.step(make_plan(recipe)), outputs=False)
                for matrix in (*opened, *others):
                    if stopped():
                        return
                    self._see(step, matrix)
                    yield matrix.name
                if not self._held.lean:
                    self._ready.append(recipe)
        self._next = ()  # nothing is left to do after the next question

    def state(self, plan: Plan) -> dict[str, Tensor]:
        """The merged weights by tensor name in their output dtypes; computed if no move has left them here."""
        if plan.digest not in self._states:
            with one_thread_a_matrix():
                self._keep(plan, self._written(self._deltas.step(plan), plan.tensors, {}, lambda: False))
        return self._states[plan.digest]

    def written(self, plan: Plan) -> dict[str, Tensor] | None:
        """What `state` gives, where it has it at hand."""
        return self._states.get(plan.digest)

    def folded(self, plan: Plan) -> Folded | None:
        """The merge by its folds, where the latest move made any."""
        return self._folded if self._folded and self._folded.digest == plan.digest else None

    def triplets(self, k: int) -> dict[str, list[SVD]]:
        """The k leading triplets of every expert's delta, or as many as are held, by pictured matrix."""

        def of(name: str) -> list[SVD]:
            self._pictures.facts(name)  # before the factors, as in `_merge`
            factors = self._held.matrix(name)
            found = [factors.svd(t, k) for t in range(len(factors.ids))]
            self._held.settle(name)
            return found

        names = [matrix.name for matrix in self.family.matrices]
        with one_thread_a_matrix():
            return dict(zip(names, self._pool.map(of, names), strict=True))

    def outputs(self, plans: Sequence[Plan]) -> Outputs:
        """What the merges of these plans put out on the experts' texts, over all matrices that they make and that were
        measured. The experts are the first plan's, in its order. Raises UserError E_CALIBRATION where none was.
        """
        with one_thread_a_matrix():
            steps = [self._deltas.step(plan) for plan in plans]
            return put_out(steps, self._deltas, self._held, self.family.matrices, self._pool)

    def _see(self, step: Step, matrix: Matrix) -> tuple[Seen, Merged]:
        return self._measure(step, matrix, *self._merge(step, matrix))

    def _merge(self, step: Step, matrix: Matrix) -> tuple[Tensor | Fold, MatrixView]:
        """Enough to show the open matrix."""
        self._pictures.facts(matrix.name)  # before the factors: of a big family they take the base's norm from here
        delta = self._deltas.delta(step, step.plan.tensor(matrix.name))
        return delta, self._pictures.view(step, matrix, delta)

    def _measure(self, step: Step, matrix: Matrix, delta: Tensor | Fold, view: MatrixView) -> tuple[Seen, Merged]:
        seen = Seen(view, self._pictures.measures(step, matrix, delta))
        self._held.settle(matrix.name, shown=matrix.name == self._focus)
        if isinstance(delta, Fold):
            return seen, delta
        tensor = step.plan.tensor(matrix.name)
        return seen, None if step.plan.space == "weights" else self._deltas.weights(step, tensor, delta)

    def _written(
        self, step: Step, tensors: Sequence[TensorPlan], seen: Mapping[str, Merged], cancelled: Callable[[], bool]
    ) -> dict[str, Tensor]:
        """These tensors of the merge; not all of them once `cancelled()`."""

        def merged(tensor: TensorPlan) -> Tensor | None:
            return weights_of(step, tensor, seen.get(tensor.name), self._deltas, self._held, cancelled)

        found = zip((t.name for t in tensors), self._pool.map(merged, tensors), strict=True)
        return {name: tensor for name, tensor in found if tensor is not None}

    def _keep(self, plan: Plan, state: dict[str, Tensor]) -> None:
        self._states[plan.digest] = {tensor.name: state[tensor.name] for tensor in plan.tensors}
        while len(self._states) > (1 if self._held.lean else 2):
            self._states.popitem(last=False)
