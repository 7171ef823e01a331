"""The deltas of one matrix with their decompositions so far, and their fold into one low-rank merge.

`Factors` remembers what it computed, so that a slider move repeats only what it made stale; a merge that needs
each matrix once simply drops it afterwards.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from merging.decompose import SMALL, SVD, real_rank, singular_values, svd, svd_of_product
from merging.eigen import eigenvalues, gram
from merging.memo import Memo
from merging.polar import polar
from merging.sketch import sketch, with_tail


@dataclass(frozen=True)
class Factors:
    """The deltas (T, m, n) of one matrix, with the decompositions made so far.

    noise: singular values below it are rounding noise of the stored weights (METHODS: u rms(W_0) (sqrt m + sqrt n)).
    ids: who each delta belongs to, so that a memo outlives the removal of an expert.
    low: of an adapter's delta its two factors b (m, r) and a (r, n), delta = b @ a; None for the others.
    side: smaller side of the matrix that they stand for, where that is not their own (see `merging/spaces.py`).
    ahead: triplets found at least where any are asked for, so that a rank slider finds its next stops there.
    most: triplets of a delta that there are at most, where a cache has no room for more; 0 where nothing limits them.
    sketched: its triplets are a first picture's (`merging/sketch.py`); nothing that is kept may come of them.
    """

    deltas: Tensor
    noise: float = 0.0
    ids: tuple[int, ...] = ()
    low: tuple[tuple[Tensor, Tensor] | None, ...] = ()
    side: int = 0
    ahead: int = 0
    most: int = 0
    sketched: bool = False
    memo: Memo = field(default_factory=Memo, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.ids:
            object.__setattr__(self, "ids", tuple(range(len(self.deltas))))
        if not self.low:
            object.__setattr__(self, "low", (None,) * len(self.deltas))

    @property
    def full_rank(self) -> int:
        return self.side or min(self.deltas.shape[1:])

    @property
    def only_adapters(self) -> bool:
        return all(low is not None for low in self.low)

    def select(self, keep: Sequence[int]) -> "Factors":
        """The same matrix with the experts at `keep`, in that order; shares the memo."""
        if list(keep) == list(range(len(self.deltas))):
            return self
        ids, low = tuple(self.ids[t] for t in keep), tuple(self.low[t] for t in keep)
        return replace(self, deltas=self.deltas[list(keep)], ids=ids, low=low)

    def part(self, e: int) -> "Factors":
        """Matrix e of a stack of deltas (T, E, m, n)."""
        return Factors(self.deltas[:, e], self.noise, self.ids)

    def remember(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, or what it gave before."""
        return self.memo.remember(key, make)

    def svd(
        self, t: int, k: int | None = None, key: Hashable = "raw", change: Callable[[Tensor], Tensor] | None = None
    ) -> SVD:
        """The k leading triplets (None: all) of delta t, or of `change(delta t)`; `key` names the change in the memo.

        An unchanged adapter's delta of rank r has r triplets, found exactly without a dense decomposition.
        """
        name, low = ("svd" if key == "raw" else "changed", self.ids[t], key), self.low[t]
        if self.most and (low is None or change is not None):
            k = self.most if k is None else min(k, self.most)
        if change is not None:
            return self.extend(name, k, lambda wanted: self._find(change(self.deltas[t]), wanted))
        if low is not None:
            return self.remember(name, lambda: svd_of_product(*low)).head(k)
        return self.extend(name, k, lambda wanted: self._find(self.deltas[t], wanted))

    def _find(self, a: Tensor, k: int) -> SVD:
        return sketch(a, k) if self.sketched and min(a.shape) >= SMALL else svd(a, k)

    def extend(self, name: Hashable, k: int | None, make: Callable[[int], SVD]) -> SVD:
        """The first k (None: all) triplets of `make(k)`, or of what it gave for a larger k."""
        side = min(self.deltas.shape[1:])
        wanted = side if k is None or side < SMALL else min(max(k, self.ahead), side)
        with self.memo.lock:
            found = self.memo.get(name)
            longer = found is None or len(found.s) < wanted
            return self.memo.put(name, make(wanted) if longer else found).head(k)

    def spectrum(self, t: int) -> Tensor:
        """All singular values of delta t, descending, without triplets where those would cost more."""
        if self.low[t] is not None or min(self.deltas.shape[1:]) < SMALL:
            return self.svd(t).s
        return self.remember(("spectrum", self.ids[t]), lambda: self._values(t))

    def _values(self, t: int) -> Tensor:
        delta = self.deltas[t]
        if not self.sketched:
            return singular_values(delta)
        found = self.memo.get(("svd", self.ids[t], "raw")) or self.svd(t, self.full_rank // len(self.ids))
        return with_tail(found.s, float(delta.norm()), min(delta.shape))

    def rank_within(
        self, t: int, k: int, key: Hashable = "raw", change: Callable[[Tensor], Tensor] | None = None
    ) -> int:
        """The numerical rank of delta t, or k where it is larger; found from the triplets that `svd` of these tells.

        The leading directions V (n, k) of the changed delta bound it: `s_k(D) >= s_k(D V)`, mostly far above the noise.
        """
        part, longer = self.svd(t, k, key, change), max(self.deltas.shape[1:])
        if change is None:
            return real_rank(part.s, longer, self.noise if self.low[t] is None else 0.0)

        def enough() -> bool:
            inside = self.deltas[t] @ part.v
            squares = eigenvalues(gram(inside))
            noise = max(self.noise**2, float(squares[0]) * (longer * torch.finfo(squares.dtype).eps) ** 2)
            return float(squares[-1]) > max(4 * noise, 1e-5 * float(squares[0]))  # what float32 tells for sure

        if self.low[t] is None and self.remember(("enough", self.ids[t], key, len(part.s)), enough):
            return len(part.s)
        return min(len(part.s), self.numerical_rank(t))

    def numerical_rank(self, t: int) -> int:
        """Directions of delta t above rounding noise, at least 1 unless it is 0: a LoRA delta of rank 4 counts 4."""
        noise = self.noise if self.low[t] is None else 0.0
        return real_rank(self.spectrum(t), max(self.deltas.shape[1:]), noise)

    def real(self, t: int) -> SVD:
        """The triplets of delta t above rounding noise; of an adapter in float64, so that none of its own is lost."""
        low, root = self.low[t], max(self.deltas.shape[1:]) ** 0.5
        if low is None:
            return self.svd(t, real_rank(self.spectrum(t), root, self.noise))
        found = svd_of_product(low[0].double(), low[1].double())
        return found.head(real_rank(found.s, root))

    def sum_noise(self, weights: Tensor) -> float:
        """The noise of `sum w_t D_t`: every expert's own rounding, and the base's, which all of them share."""
        if self.only_adapters:
            return 0.0
        return self.noise * float((weights.sum().square() + weights.square().sum()) / 2) ** 0.5

    def times(self, scales: Tensor) -> "Factors":
        """The same matrix with delta t multiplied by `scales[t]`; remembers nothing."""
        low = tuple(None if pair is None else (pair[0] * scales[t], pair[1]) for t, pair in enumerate(self.low))
        return Factors(self.deltas * scales.view(-1, 1, 1), self.noise, self.ids, low, self.side)


@dataclass(frozen=True)
class Fold:
    """A merged delta `u diag(x) v^T`: u (m, R) and v (n, R) partial isometries, x (R,).

    ranks: directions kept of each expert; empty where the method does not cut expert by expert.
    dropped: directions lost to the polar tolerance.
    outlier_weights: mean weight that the outlier rule gave each expert's entries (1 = untouched).
    """

    u: Tensor
    x: Tensor
    v: Tensor
    ranks: tuple[int, ...] = ()
    dropped: int = 0
    outlier_weights: tuple[float, ...] = ()
    core: tuple[Tensor, Tensor] | None = None  # where directions were dropped: u and v in bases of their own
    strengths: Tensor | None = None  # x before the experts' scales, where it was made of such

    def dense(self) -> Tensor:
        return (self.u * self.x) @ self.v.T

    def singular_values(self) -> Tensor:
        """Descending, without forming the matrix: |x|, or those of the small core where directions were dropped."""
        if self.core is None:
            return self.x.abs().sort(descending=True).values
        left, right = self.core
        found = singular_values((left * self.x) @ right.T)
        return torch.cat([found, found.new_zeros(len(self.x) - len(found))])

    def svd(self) -> SVD:
        """Its triplets, singular values descending."""
        if self.core is not None:
            return svd_of_product(self.u * self.x, self.v.T)
        order = self.x.abs().argsort(descending=True, stable=True)
        x = self.x[order]
        return SVD(self.u[:, order], x.abs(), self.v[:, order] * torch.where(x < 0, -1.0, 1.0).to(x.dtype))


def dense(delta: Tensor | Fold) -> Tensor:
    """What a method has merged, as the tensor that it stands for."""
    return delta.dense() if isinstance(delta, Fold) else delta


def fold(factors: Factors, parts: Sequence[SVD], scales: Sequence[float], *, tolerance: float, key: Hashable) -> Fold:
    """Orthogonalise the concatenated triplets (TSV-M, Gargiulo et al. 2024, eq. 8-9): `polar(U) diag(x) polar(V)^T`.

    parts: the kept triplets of each expert; scales: what multiplies each expert's singular values. `key` names the
    parts in the memo: scales may change without a new polar factor.
    """

    def orthogonalise() -> tuple[Tensor, Tensor, int, tuple[Tensor, Tensor] | None, Tensor]:
        u, left = polar(torch.cat([part.u for part in parts], 1), tolerance)
        v, right = polar(torch.cat([part.v for part in parts], 1), tolerance)
        lost = u.shape[1] - min(len(left), len(right))
        return u, v, lost, (left, right) if lost else None, torch.cat([part.s for part in parts])

    ranks = tuple(len(part.s) for part in parts)
    u, v, lost, core, strengths = factors.remember(("fold", factors.ids, key, ranks, tolerance), orthogonalise)
    x = torch.cat([scale * part.s for scale, part in zip(scales, parts, strict=True)])
    return Fold(u, x, v, ranks, lost, core=core, strengths=strengths)
