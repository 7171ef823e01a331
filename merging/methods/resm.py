"""RESM, first called R-TSVM: TSV-M with outliers held down and a rank per layer that follows its sparsity."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from merging.decompose import SVD
from merging.method import Choice, Lambda, Number, Paper, merge_method
from merging.methods.tsv_m import EXCLUDE
from merging.ops import hoyer_sparsity, middle_and_spread, sparsity
from merging.spectral import Factors, Fold, fold

LAYER_MODES = ("layer_suppress", "layer_emphasise")
SCALES = ("outlier_mode", "none", *LAYER_MODES)  # with these modes outliers scale whole experts


def densest_layer(
    read: Callable[[], Factors], *, rank_mode: str, sparsity_threshold: float, **_: object
) -> Tensor | None:
    """1 - s of each expert on one matrix; its maximum over the matrices is what `sparsity_budget` divides by."""
    if rank_mode != "sparsity_budget":
        return None
    shares = [1 - sparsity(delta, sparsity_threshold) for delta in read().deltas]
    return torch.tensor(shares, dtype=torch.float64)


def diagonal(
    factors: Factors,
    weights: Sequence[float],
    *,
    lambda_: float,
    **knobs: Any,
) -> tuple[list[float], tuple[float, ...]]:
    rule = _Outliers(**{key: value for key, value in knobs.items() if key.startswith("outlier_")})
    q = rule.layer_weights(factors)
    means = tuple(q_t * rule.mean_weight(factors, t) for t, q_t in enumerate(q))
    return [lambda_ * w * q_t for w, q_t in zip(weights, q, strict=True)], means


@merge_method(
    title="RESM (R-TSVM)",
    paper=Paper("Mix Data or Merge Models?", "2502.06876", 2025),
    note="Definition reconstructed from the paper's abstract.",
    space="factors",
    triplets=True,
    diagonal=diagonal,
    across=densest_layer,
)
def resm(
    factors: Factors,
    weights: Tensor,
    *,
    rank_budget: Annotated[
        float,
        Number(0.02, 1.0, 0.02, 1.0, "Rank", "Share of directions, split among experts.", first=True, moves="fold"),
    ],
    sparsity_threshold: Annotated[
        float,
        Number(0.0, 1.0, 0.05, 0.1, "Sparsity", "Entries below this × RMS count as zero.", first=True, moves="fold"),
    ],
    outlier_strength: Annotated[
        float,
        Number(
            0.0,
            1.0,
            0.05,
            1.0,
            "Outlier weight",
            "How firmly extreme entries are reweighted.",
            first=True,
            scales=SCALES,
            needs=("outlier_mode", "huber", "drop", *LAYER_MODES),
        ),
    ],
    lambda_: Annotated[float, Lambda(3.0)],
    rank_mode: Annotated[
        str,
        Choice(
            ("sparsity", "uniform", "sparsity_budget", "hoyer", "energy", "outlier_share"),
            "Rank rule",
            "What decides the rank of a layer.",
            moves="fold",
        ),
    ],
    outlier_mode: Annotated[
        str,
        Choice(
            ("huber", "none", "drop", "layer_suppress", "layer_emphasise"),
            "Outlier rule",
            "What happens beyond the threshold.",
            scales=SCALES,
        ),
    ],
    outlier_threshold: Annotated[
        float,
        Number(0.5, 6.0, 0.25, 3.0, "Outlier threshold σ", "Lower treats more entries as extreme.", scales=SCALES),
    ],
    outlier_scope: Annotated[
        str, Choice(("tensor", "row"), "Measured over", "Whole matrix, or each row.", scales=SCALES)
    ],
    outlier_stat: Annotated[
        str, Choice(("std", "mad"), "Spread by", "Standard deviation, or robust MAD.", scales=SCALES)
    ],
    energy: Annotated[
        float,
        Number(0.5, 1.0, 0.01, 0.9, "Energy", "Share of it kept.", moves="fold", needs=("rank_mode", "energy")),
    ],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
    polar_tolerance: Annotated[
        float,
        Number(0.0, 0.1, 0.001, 0.001, "Polar tolerance", "Drop directions weaker than this share.", moves="fold"),
    ],
    peak: Tensor | None = None,
) -> Fold:
    """Keeps each expert's strongest directions, clips its outliers, then removes the overlap between experts.

    theta = mean + kappa std of |D|; element modes weigh an entry beyond it by 1 - g + g theta/|d| (huber) or 1 - g
    (drop); layer modes weigh the expert by q^(4g), q = 1 - o or o, o the L1 mass beyond theta, scaled to mean 1.
    Rank `floor((1 - s) rho r / T)` with s the share of entries below eta RMS, capped by the numerical rank. With
    nothing to clip, s = 0 and rho = 1 this is TSV-M. The element modes make an adapter's delta full-rank, which then
    takes a dense decomposition; with `none` and the layer modes it keeps to the adapter's factors.
    """
    outliers = {
        "outlier_mode": outlier_mode, "outlier_threshold": outlier_threshold, "outlier_strength": outlier_strength,
        "outlier_scope": outlier_scope, "outlier_stat": outlier_stat,
    }  # fmt: skip
    rule = _Outliers(**outliers)

    def keep() -> list[SVD]:
        wanted = _wanted(factors, rank_mode, rank_budget, sparsity_threshold, energy, peak)
        how = [(rule.key, None if rule.key == "raw" else partial(rule.change, factors, t)) for t in range(len(wanted))]
        ranks = [factors.rank_within(t, k, *how[t]) for t, k in enumerate(wanted)]
        return _within_budget([factors.svd(t, k, *how[t]) for t, k in enumerate(ranks)], factors.full_rank)

    decides = (rank_mode, rank_budget, sparsity_threshold, energy, None if peak is None else tuple(peak.tolist()))
    parts = factors.remember(("parts", factors.ids, rule.key, *decides), keep)
    each, means = diagonal(factors, weights.tolist(), lambda_=lambda_, **outliers)
    return replace(fold(factors, parts, each, tolerance=polar_tolerance, key=rule.key), outlier_weights=means)


class _Outliers:
    """The outlier rule of one recipe: what it does to entries, or to whole experts, beyond theta."""

    def __init__(
        self, outlier_mode: str, outlier_threshold: float, outlier_strength: float, outlier_scope: str,
        outlier_stat: str,
    ) -> None:  # fmt: skip
        self.mode, self.kappa, self.strength = outlier_mode, outlier_threshold, outlier_strength
        self.scope, self.stat = outlier_scope, outlier_stat
        untouched = self.mode == "none" or self.mode in LAYER_MODES or self.strength == 0
        self.key = "raw" if untouched else (self.mode, self.kappa, self.strength, self.scope, self.stat)

    def _theta(self, factors: Factors, t: int) -> Tensor:
        key = ("theta", factors.ids[t], self.kappa, self.scope, self.stat)
        return factors.remember(key, lambda: _threshold(factors, t, self.kappa, self.scope, self.stat))

    def change(self, factors: Factors, t: int, delta: Tensor) -> Tensor:
        theta = self._theta(factors, t)
        full = delta.clamp(-theta, theta) if self.mode == "huber" else torch.where(delta.abs() <= theta, delta, 0.0)
        return full if self.strength == 1 else torch.lerp(delta, full, self.strength)

    def mean_weight(self, factors: Factors, t: int) -> float:
        if self.key == "raw":
            return 1.0

        def measure() -> float:
            theta, size = self._theta(factors, t), factors.deltas[t].abs()
            full = (theta / size).clamp_(max=1.0) if self.mode == "huber" else (size <= theta).to(size.dtype)
            return 1 - self.strength + self.strength * full.mean().item()

        return factors.remember(("mean weight", factors.ids[t], self.key), measure)

    def layer_weights(self, factors: Factors) -> list[float]:
        """One factor per expert with mean 1; all 1 in the element modes, or where nothing stands out."""
        n = len(factors.deltas)
        if self.mode not in LAYER_MODES:
            return [1.0] * n
        key = ("masses", factors.ids, self.kappa, self.scope, self.stat)
        masses = factors.remember(key, lambda: [_outlier_mass(factors, t, *key[2:]) for t in range(n)])
        q = [1 - beyond / total if total else 1.0 for beyond, total in masses]
        if self.mode == "layer_emphasise":
            q = [beyond for beyond, _ in masses]
        if sum(q) == 0:
            return [1.0] * n
        raised = [value ** (4 * self.strength) for value in q]
        return [value * n / sum(raised) for value in raised]


def _threshold(factors: Factors, t: int, kappa: float, scope: str, stat: str) -> Tensor:
    """Infinite where it would be 0: median and MAD of a delta that is mostly 0 tell no scale; nothing stands out."""
    key = ("spread", factors.ids[t], scope, stat)
    middle, spread = factors.remember(key, lambda: middle_and_spread(factors.deltas[t].abs(), stat=stat, scope=scope))
    theta = middle + kappa * spread
    return torch.where(theta > 0, theta, math.inf)


def _outlier_mass(
    factors: Factors, t: int, kappa: float, scope: str = "tensor", stat: str = "std"
) -> tuple[float, float]:
    """L1 mass of delta t beyond theta, and in all."""

    def measure() -> float:
        size = factors.deltas[t].abs()
        return size[size > _threshold(factors, t, kappa, scope, stat)].sum().item()

    beyond = factors.remember(("mass", factors.ids[t], kappa, scope, stat), measure)
    return beyond, factors.remember(("all mass", factors.ids[t]), lambda: factors.deltas[t].abs().sum().item())


def _wanted(factors: Factors, mode: str, budget: float, eta: float, energy: float, peak: Tensor | None) -> list[int]:
    """Directions asked of each expert, at least 1."""
    n, r = len(factors.deltas), factors.full_rank
    share = budget * r / n
    if mode == "outlier_share":
        masses = [_outlier_mass(factors, t, 1.0)[0] for t in range(n)]
        total = sum(masses)
        wanted = [math.floor(budget * r * mass / total + 0.5) if total else math.floor(share) for mass in masses]
    elif mode == "energy":
        wanted = [min(math.floor(share), _energy_rank(factors.spectrum(t), energy)) for t in range(n)]
    else:
        wanted = [math.floor(_dense_share(factors, t, mode, eta, peak) * share + 1e-9) for t in range(n)]
    return [max(1, k) for k in wanted]


def _dense_share(factors: Factors, t: int, mode: str, eta: float, peak: Tensor | None) -> float:
    if mode == "uniform":
        return 1.0
    if mode == "hoyer":
        return 1 - factors.remember(("hoyer", factors.ids[t]), lambda: hoyer_sparsity(factors.deltas[t]))
    dense = 1 - factors.remember(("sparsity", factors.ids[t], eta), lambda: sparsity(factors.deltas[t], eta))
    if mode == "sparsity_budget" and peak is not None and peak[t] > 0:
        return dense / float(peak[t])
    return dense


def _energy_rank(s: Tensor, share: float) -> int:
    energy = s.double().square().cumsum(0)
    return int((energy < share * energy[-1] * (1 - 1e-12)).sum()) + 1


def _within_budget(parts: list[SVD], r: int) -> list[SVD]:
    """With more experts than directions only the r largest leading triplets stay: more cannot be orthogonal."""
    if sum(len(part.s) for part in parts) <= r:
        return parts
    owner = torch.cat([torch.full_like(part.s, t) for t, part in enumerate(parts)])
    largest = torch.cat([part.s for part in parts]).argsort(descending=True, stable=True)[:r]
    return [part.head(int((owner[largest] == t).sum())) for t, part in enumerate(parts)]
