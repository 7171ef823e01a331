"""Truncated singular value decompositions of deltas, and their fold into one low-rank merge.

The only file that uses `torch.linalg`. Everything here is exact (LAPACK gesdd in the dtype of the deltas).
`Factors` remembers what it computed, so that a slider move repeats only what it made stale; a merge that needs
each matrix once simply drops it afterwards.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

import torch
from torch import Tensor

# Relative error (root mean square, at worst) that two roundings to the stored dtype leave in a difference:
# sqrt(2/3) unit roundoffs each. Half a unit roundoff, as first proposed, counted 40 directions in a rank-4 delta.
ROUNDOFF = {torch.bfloat16: (2 / 3) ** 0.5 * 2.0**-8, torch.float16: (2 / 3) ** 0.5 * 2.0**-11}

MEMO_LIMIT = 64  # results remembered a matrix: a few slider positions of three experts


@dataclass(frozen=True)
class SVD:
    """Leading triplets: u (m, k), s (k,) descending, v (n, k)."""

    u: Tensor
    s: Tensor
    v: Tensor

    def head(self, k: int) -> "SVD":
        return SVD(self.u[:, :k], self.s[:k], self.v[:, :k])


@dataclass(frozen=True)
class Factors:
    """The deltas (T, m, n) of one matrix, with the decompositions made so far.

    noise: singular values below it are rounding noise of the stored weights (METHODS: u rms(W_0) (sqrt m + sqrt n)).
    ids: who each delta belongs to, so that a memo outlives the removal of an expert.
    low: of an adapter's delta its two factors b (m, r) and a (r, n), delta = b @ a; None for the others.
    side: smaller side of the matrix that they stand for, where that is not their own (see `merging/spaces.py`).
    """

    deltas: Tensor
    noise: float = 0.0
    ids: tuple[int, ...] = ()
    low: tuple[tuple[Tensor, Tensor] | None, ...] = ()
    side: int = 0
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)
    lock: RLock = field(default_factory=RLock, repr=False, compare=False)

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
        """`make()`, or what it gave before; the MEMO_LIMIT latest used results are kept."""
        with self.lock:  # one matrix is worked on by one thread at a time; different matrices run side by side
            value = self.memo.pop(key) if key in self.memo else make()
            self.memo[key] = value
            while len(self.memo) > MEMO_LIMIT:
                del self.memo[next(iter(self.memo))]
            return value

    def svd(self, t: int, key: Hashable = "raw", change: Callable[[Tensor], Tensor] | None = None) -> SVD:
        """All triplets of delta t, or of `change(delta t)`; `key` names the change in the memo.

        An unchanged adapter's delta of rank r has r triplets, found exactly without a dense decomposition.
        """

        def decompose() -> SVD:
            if change is not None:
                return svd(change(self.deltas[t]))
            low = self.low[t]
            return svd(self.deltas[t]) if low is None else svd_of_product(*low)

        return self.remember(("svd", self.ids[t], key), decompose)

    def numerical_rank(self, t: int) -> int:
        """Directions of delta t above rounding noise, at least 1 unless it is 0: a LoRA delta of rank 4 counts 4."""
        noise = self.noise if self.low[t] is None else 0.0  # an adapter is no difference of rounded weights
        return real_rank(self.svd(t).s, max(self.deltas.shape[1:]), noise)

    def real(self, t: int) -> SVD:
        """The triplets of delta t above rounding noise; of an adapter in float64, so that none of its own is lost."""
        low, root = self.low[t], max(self.deltas.shape[1:]) ** 0.5
        if low is None:
            return self.svd(t).head(real_rank(self.svd(t).s, root, self.noise))
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
    core: tuple[Tensor, Tensor] | None = None  # R factors of u and v where directions were dropped

    def dense(self) -> Tensor:
        return (self.u * self.x) @ self.v.T

    def singular_values(self) -> Tensor:
        """Descending, without forming the matrix: |x|, or those of the small core where directions were dropped."""
        if self.core is None:
            return self.x.abs().sort(descending=True).values
        left, right = self.core
        return torch.linalg.svdvals((left * self.x) @ right.T)

    def svd(self) -> SVD:
        """Its triplets, singular values descending."""
        if self.core is not None:
            return svd_of_product(self.u * self.x, self.v.T)
        order = self.x.abs().argsort(descending=True, stable=True)
        x = self.x[order]
        return SVD(self.u[:, order], x.abs(), self.v[:, order] * torch.where(x < 0, -1.0, 1.0).to(x.dtype))


def svd(a: Tensor) -> SVD:
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return SVD(u, s, vh.T)


def svd_of_product(b: Tensor, a: Tensor) -> SVD:
    """The r triplets of `b @ a` (b (m, r), a (r, n)): QR of both, then an SVD of the r x r core."""
    left, core_b = torch.linalg.qr(b)
    right, core_a = torch.linalg.qr(a.T)
    u, s, vh = torch.linalg.svd(core_b @ core_a.T, full_matrices=False)
    return SVD(left @ u, s, right @ vh.T)


def singular_values(a: Tensor) -> Tensor:
    """Singular values of a matrix or a batch of matrices, descending."""
    return torch.linalg.svdvals(a)


def real_rank(s: Tensor, roundoffs: float, noise: float = 0.0) -> int:
    """How many singular values `s` (descending) are no rounding noise; at least 1 unless all are 0.

    roundoffs: noise of the arithmetic, in roundoffs of the largest: the longer side where too few do no harm (ranks),
    its root where none may be lost (measured noise is a sixth of that). noise: what rounding the stored weights leaves.
    """
    if len(s) == 0 or s[0] == 0:
        return 0
    floor = float(s[0]) * roundoffs * torch.finfo(s.dtype).eps
    return max(1, int((s > max(floor, noise)).sum()))


def basis(a: Tensor, tolerance: float) -> Tensor:
    """Orthonormal columns that span those of `a` (m, R), without directions below `tolerance` of the strongest."""
    q, r = torch.linalg.qr(a)
    u, s, _ = torch.linalg.svd(r, full_matrices=False)
    return q @ u[:, s > tolerance * s[:1]]


def eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (descending) and eigenvectors (columns) of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(a)
    return values.flip(0), vectors.flip(1)


def cayley(rotation: Tensor) -> Tensor | None:
    """The skew `(R - I)(R + I)^-1` of an orthogonal matrix; None where it reflects or turns by nearly 180 degrees."""
    one = torch.eye(len(rotation), dtype=rotation.dtype, device=rotation.device)
    skew, failed = torch.linalg.solve_ex(rotation + one, rotation - one)
    if int(failed) or not torch.isfinite(skew).all() or float(skew.abs().max()) > 1e3:
        return None
    return (skew - skew.T) / 2


def rotation_of(skew: Tensor) -> Tensor:
    """The rotation `(I - Q)^-1 (I + Q)` of a skew matrix, Cayley's way back."""
    one = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(one - skew, one + skew)


def noise_floor(base: Tensor) -> float:
    """Largest singular value that rounding two stored weights leaves in their difference; 0 for float32.

    Of a stack (..., m, n) that of a matrix in it.
    """
    m, n = base.shape[-2:]
    rms = base.float().square().mean().sqrt().item()
    return ROUNDOFF.get(base.dtype, 0.0) * rms * (m**0.5 + n**0.5)


def polar(a: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """The partial isometry `P R^T` of `a = P Q R^T`, without directions where Q <= tolerance Q_1; how many those were.

    Plain polar factors (tolerance 0) fill the directions that duplicate experts share with arbitrary vectors.
    """
    if a.shape[1] == 0:
        return a, 0
    p, q, rh = torch.linalg.svd(a, full_matrices=False)
    keep = q > tolerance * q[0] if tolerance > 0 else torch.ones_like(q, dtype=torch.bool)
    dropped = a.shape[1] - int(keep.sum())
    return (p @ rh if keep.all() else p[:, keep] @ rh[keep]), dropped


def fold(factors: Factors, parts: Sequence[SVD], scales: Sequence[float], *, tolerance: float, key: Hashable) -> Fold:
    """Orthogonalise the concatenated triplets (TSV-M, Gargiulo et al. 2024, eq. 8-9): `polar(U) diag(x) polar(V)^T`.

    parts: the kept triplets of each expert; scales: what multiplies each expert's singular values. `key` names the
    parts in the memo: scales may change without a new polar factor.
    """

    def orthogonalise() -> tuple[Tensor, Tensor, int, tuple[Tensor, Tensor] | None]:
        u, lost_u = polar(torch.cat([part.u for part in parts], 1), tolerance)
        v, lost_v = polar(torch.cat([part.v for part in parts], 1), tolerance)
        lost = max(lost_u, lost_v)
        core = (torch.linalg.qr(u, mode="r").R, torch.linalg.qr(v, mode="r").R) if lost else None
        return u, v, lost, core

    ranks = tuple(len(part.s) for part in parts)
    u, v, lost, core = factors.remember(("fold", factors.ids, key, ranks, tolerance), orthogonalise)
    x = torch.cat([scale * part.s for scale, part in zip(scales, parts, strict=True)])
    return Fold(u, x, v, ranks, lost, core=core)
