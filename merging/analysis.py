"""Pictures as numbers: conflicts between experts, spectra, tails. Torch in, frozen dataclasses of numpy out.

Every array that covers all matrices has the shape (..., kinds, layers), so that a matrix has one place in every
picture: layer left to right, kind top to bottom; NaN where a model has no such matrix.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Measure = Literal["sign", "cosine", "shared", "interference", "kept"]


@dataclass(frozen=True)
class Matrix:
    """One two-dimensional tensor of the model and its place in every picture."""

    name: str  # tensor name
    layer: int
    kind: str  # "q", "down", ...; or the last part of the tensor's name
    shape: tuple[int, int]


@dataclass(frozen=True)
class Family:
    """Who is pictured: expert names in order, and the places of their matrices."""

    experts: tuple[str, ...]
    matrices: tuple[Matrix, ...]
    kinds: tuple[str, ...]
    n_layers: int

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple((a, b) for i, a in enumerate(self.experts) for b in self.experts[i + 1 :])

    def at(self, layer: int, kind: str) -> Matrix | None:
        return next((m for m in self.matrices if (m.layer, m.kind) == (layer, kind)), None)


@dataclass(frozen=True)
class Conflict:
    """One measure on every matrix.

    sign: share of entries (0..1, of those where both moved) that two experts push in opposite directions, chance .5.
    cosine: of two deltas, -1..1. shared: overlap of the top-k left and right subspaces, 0..1.
    interference: singular task interference of the pair divided by the sum of singular values, >= 0.
    kept: cosine of the merged delta with each expert's delta, -1..1; its rows are experts, not pairs.
    """

    measure: Measure
    rows: tuple[tuple[str, ...], ...]  # the pair, or the one expert, of each map
    values: np.ndarray  # (rows, kinds, layers) float32


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one model's delta on one matrix."""

    model: str  # expert name or "merge"
    values: np.ndarray  # descending, float32
    kept: int | None  # directions the method keeps; None where it does not cut
    stable_rank: float  # |D|_F^2 / |D|_2^2
    half_energy: int  # directions that hold half of the squared norm


@dataclass(frozen=True)
class Tail:
    """How heavy-tailed one expert's delta is."""

    model: str
    threshold: float  # mean + kappa std of the absolute entries
    entries: float  # share of entries beyond the threshold
    mass: float  # share of L1 mass beyond it
    sparsity: float  # share of entries below eta x RMS
    norm_ratio: float  # |delta| / |base|
    outlier_weight: float  # mean weight the method gives this expert's entries here (1 = untouched)


@dataclass(frozen=True)
class MatrixView:
    """Everything shown of one matrix."""

    matrix: Matrix
    spectra: tuple[Spectrum, ...]  # experts in order, then the merge last
    tails: tuple[Tail, ...]
    dropped: int  # directions lost to the polar tolerance


@dataclass(frozen=True)
class Look:
    """All pictures of one recipe: what the live worker answers to a slider move."""

    digest: str
    family: Family
    conflicts: dict[Measure, Conflict]
    views: dict[str, MatrixView]  # by tensor name; every matrix
    tier: Literal["exact", "preview"]
    seconds: float


def cumulative_energy(values: np.ndarray) -> np.ndarray:
    """Share of the squared norm held by the first 1, 2, ... directions."""
    squares = np.square(values.astype(np.float64))
    total = squares.sum()
    return np.cumsum(squares) / total if total > 0 else np.zeros_like(squares)
