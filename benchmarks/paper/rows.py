"""The merges that are compared and what is tried for each: at most six settings, their scale among them.

Twelve are our reading of the paper's list, the thirteenth is its own method; those after it merge by what the experts
read, which the paper does not try. A new row is one more line here.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Weights = tuple[float, float, float]  # of helpful, honest, harmless
EQUAL: Weights = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Setting:
    """texts: how many of its own each expert reads for a calibrated merge."""

    knobs: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights = EQUAL
    texts: int = 0


@dataclass(frozen=True)
class Row:
    name: str
    method: str
    grid: tuple[Setting, ...]


def over(
    fixed: Mapping[str, Any] | None = None, texts: tuple[int, ...] = (0,), **values: list[float]
) -> tuple[Setting, ...]:
    """Every combination of the values; `scale` is the recipe's lambda."""
    keys = ["lambda" if key == "scale" else key for key in values]
    return tuple(Setting({**(fixed or {}), **dict(zip(keys, one, strict=True))}, texts=n)
                 for n, one in itertools.product(texts, list(itertools.product(*values.values()))))  # fmt: skip


SHARES: tuple[Weights, ...] = (EQUAL, (1, 2, 1), (1, 1, 2), (2, 1, 1), (1, 2, 2), (1, 3, 2))
PAPER = {"convention": "paper"}
ADDED = [0.35, 0.5, 0.65]  # scales where deltas are added
AGREED = [0.4, 0.6, 0.8]  # where those of one sign are added
MEANED = [0.7, 1.0, 1.4]  # where those of one sign are averaged
NO_EMBEDDINGS = {"exclude": ("*embed*", "*lm_head*")}
LAYERS = {"outlier_mode": "layer_emphasise", "outlier_threshold": 1.0, "outlier_strength": 0.1, "rank_budget": 0.7}
TEXTS = (64, 256)
FITTED = {"embed": "tied", "a": 1.0}
ROUTER = "Answer router"  # no merge: it gives each question to one expert

ROWS = [
    Row("Weight average", "linear", (Setting(),)),  # its scale is fixed: the mean
    Row("Rewarded soup", "rewarded_soup", tuple(Setting(weights=shares) for shares in SHARES)),
    Row("Model Stock", "model_stock", (Setting({"filter_wise": False}), Setting({"filter_wise": True}))),  # finds it
    Row("Task arithmetic", "task_arithmetic", over(scale=[0.3, 0.4, 0.5, 0.6, 0.75, 0.9])),
    Row("TIES", "ties", over(density=[0.2, 0.5], scale=MEANED)),
    Row("DARE", "dare_linear", over(PAPER, density=[0.5, 0.8], scale=ADDED)),
    Row("DARE-TIES", "dare_ties", over(PAPER, density=[0.5, 0.8], scale=AGREED)),
    Row("DELLA", "della_linear", over(PAPER, density=[0.5, 0.8], scale=ADDED)),
    Row("DELLA-TIES", "della", over(PAPER, density=[0.5, 0.8], scale=MEANED)),
    Row("Breadcrumbs", "breadcrumbs", over(density=[0.5, 0.9], scale=ADDED)),
    Row("Breadcrumbs-TIES", "breadcrumbs_ties", over(density=[0.5, 0.9], scale=AGREED)),
    Row("TSV-M", "tsv_m", over(NO_EMBEDDINGS, scale=[0.35, 0.6, 0.85, 1.0, 1.15, 1.4])),
    Row("RESM", "resm", (*over(NO_EMBEDDINGS, scale=[0.5, 0.85, 1.2]),
                         *over(NO_EMBEDDINGS | LAYERS, scale=[0.5, 0.85, 1.2]))),
    Row("RegMean", "regmean", over(FITTED, TEXTS, scale=[1.1, 1.25, 1.4])),
    Row("RegMean++", "regmean_pp", over(FITTED, TEXTS, scale=[1.1, 1.25, 1.4])),
    Row("RegMean++, learned gains", "regmean_gains", over(FITTED, TEXTS[1:], scale=[1.1, 1.25, 1.4])),
    Row("RegMean++, gains of 1024 texts", "regmean_gains", over(FITTED, (1024,), scale=[1.1])),
    Row("Output fit", "output_fit", over({}, TEXTS, scale=[0.7, 1.0, 1.4])),
]  # fmt: skip
