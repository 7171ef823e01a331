"""A mixture before it is in memory: what it is made of, and what it costs (`smile.py` runs it)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from eval.running.chat import Mixing
from merging.checkpoint import Checkpoint
from merging.compute import family_deltas
from merging.cores import cores
from merging.decompose import SVD
from merging.engine import one_thread_a_matrix
from merging.look import family_of
from merging.plan import Plan
from merging.view import stored

if TYPE_CHECKING:  # seconds of transformers
    from eval.running.smile import Triplets


@dataclass(frozen=True)
class Mixed:
    """A mixture (`smile.py`) of the deltas of these experts; `triplets(k)` gives the parts of these matrices."""

    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    mixing: Mixing
    matrices: tuple[str, ...]
    triplets: Callable[[int], "Triplets"]

    @property
    def key(self) -> str:
        return f"mixture of {self.base.fingerprint} {' '.join(one.fingerprint for one in self.experts)}"

    @property
    def ranks(self) -> dict[str, int]:
        """Directions beside each matrix, of all experts together."""
        shapes = {name: self.base.tensors[name].shape for name in self.matrices}
        return {name: len(self.experts) * min(self.mixing.most, *shape) for name, shape in shapes.items()}

    @property
    def work(self) -> float:
        """Multiplications a token in its matrices, over the base's: every expert's gate and part is computed."""
        whole = sum(prod(self.base.tensors[name].shape) for name in self.matrices)
        return 1 + sum(rank * sum(self.base.tensors[name].shape) for name, rank in self.ranks.items()) / whole

    def words(self) -> str:
        cost = f"{self.work:.1f} times the base's multiplications in its {len(self.matrices)} matrices"
        return f"The mixture takes {cost}."


def mixture_of(plan: Plan, mixing: Mixing) -> Mixed:
    """Of a plan's base and experts, whose exact triplets are found when they are asked for."""
    base = stored(plan.base)
    experts = tuple(model for model in map(stored, plan.experts) if model.fingerprint != base.fingerprint)
    matrices = tuple(matrix.name for matrix in family_of([str(t) for t in range(len(experts))], base.shapes).matrices)

    def triplets(k: int) -> "Triplets":
        def of(name: str) -> list[SVD]:
            factors = family_deltas(base, experts, name)[1]
            return [factors.svd(t, k) for t in range(len(experts))]

        with one_thread_a_matrix(), ThreadPoolExecutor(cores()) as pool:
            return dict(zip(matrices, pool.map(of, matrices), strict=True))

    return Mixed(base, experts, mixing, matrices, triplets)
