"""The first pictures of a family too large to be held whole: from sketches, until its exact factors are there.

For the screen alone: sketches have factors, folds and files of their own, which nothing else reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from merging.checkpoint import Checkpoint
from merging.facts import Profile
from merging.live_deltas import LiveDeltas, Step
from merging.live_pictures import Pictures, Seen
from merging.look import Family, Look, Matrix, MatrixView
from merging.plan import Plan
from merging.resident import Resident
from merging.shaping import is_plain
from merging.store import Store


class Sketches:
    """Views and measures of a method that merges by triplets. No two threads may work on one matrix at a time.

    folder: where sketches lie until `forget`; None keeps them in memory.
    """

    def __init__(
        self, family: Family, base: Checkpoint, experts: Sequence[Checkpoint], profile: Profile, share: float,
        folder: Path | None, device: str = "cpu",
    ) -> None:  # fmt: skip
        self._store = None if folder is None else Store(folder)
        self._held = Resident(
            base, experts, self._store, lean=True, share=share, base_norm=profile.base_norm, sketched=True,
            device=device,
        )
        self._names = [matrix.name for matrix in family.matrices]
        self._deltas = LiveDeltas(base, experts, self._held, self._names, profile.get)
        self._pictures = Pictures(family, profile, self._held)

    def wanted(self, plan: Plan, exact: Resident) -> frozenset[str]:
        """The matrices to sketch first: those whose `exact` factors a method merges by and are not there yet."""
        if not plan.method.triplets or not all(is_plain(tensor.settings) for tensor in plan.tensors):
            return frozenset()
        return frozenset(name for name in self._names if not exact.has(name))

    def view(self, step: Step, matrix: Matrix) -> MatrixView:
        self._pictures.facts(matrix.name)  # before the factors, which take the base's norm from here
        delta = self._deltas.delta(step, step.plan.tensor(matrix.name))
        return self._pictures.view(step, matrix, delta)

    def see(self, step: Step, matrix: Matrix) -> Seen:
        view = self.view(step, matrix)
        delta = self._deltas.delta(step, step.plan.tensor(matrix.name))  # the fold of the view
        seen = Seen(view, self._pictures.measures(step, matrix, delta))
        self._held.settle(matrix.name)
        return seen

    def look(self, step: Step, seen: Mapping[str, Seen], seconds: float) -> Look:
        return replace(self._pictures.look(step, seen, seconds), tier="sketch")

    def forget(self) -> None:
        """Once the exact pictures are there."""
        self._held.forget()
