"""Pictures as numbers: what is shown of a recipe, and where each matrix has its place. Frozen dataclasses of numpy.

Every array that covers all matrices has the shape (..., kinds, layers), so that a matrix has one place in every
picture: layer left to right, kind top to bottom; NaN where a model has no such matrix.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from merging.layers import is_matrix, layer_of

Measure = Literal["sign", "cosine", "shared", "interference", "kept", "output"]
Tier = Literal["exact", "sketch", "maps", "sample"]


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
    output: share of each expert's own output that the merge keeps (`merging/outputs.py`), up to 1; rows are experts.
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
    outlier_weight: float = 1.0  # mean weight the method gives this expert's entries here (1 = untouched)


@dataclass(frozen=True)
class MatrixView:
    """Everything shown of one matrix."""

    matrix: Matrix
    spectra: tuple[Spectrum, ...]  # experts in order, then the merge last
    tails: tuple[Tail, ...]
    dropped: int  # directions lost to the polar tolerance
    sketched: bool = False  # an exact one follows


@dataclass(frozen=True)
class Limit:
    """Pictures of fewer directions than asked for, because the factors of so many do not fit the cache."""

    shown: float  # rank budget: the share of full rank that all experts together keep at most
    asked: float


@dataclass(frozen=True)
class Gate:
    """What a method's gate sees of each expert's matrix, and where it stands: below it the matrix is changed. Or how
    dense each expert's delta stays, without a threshold.

    NaN where the gate leaves an expert alone, and where there is no matrix.
    """

    values: np.ndarray  # (experts, kinds, layers) float32
    threshold: np.ndarray | None  # (kinds, layers) float32

    @property
    def changed(self) -> np.ndarray:
        return self.values < (np.nan if self.threshold is None else self.threshold)


@dataclass(frozen=True)
class Look:
    """All pictures of one recipe: what the live worker answers to a slider move.

    "output" is not among the conflicts where nobody asked for it and it costs a pass over the matrices.
    tier: "sample" is a first look from a part of the entries (`merging/sample.py`), of "sign" and "cosine" alone and
    without views, "maps" the same exactly; "sketch" one whose singular values and directions are approximate
    (`merging/sketch.py`).
    """

    digest: str
    family: Family
    conflicts: dict[Measure, Conflict]
    views: dict[str, MatrixView]  # by tensor name; every matrix
    seconds: float
    limit: Limit | None = None
    gate: Gate | None = None  # of a method that has one, or densities that differ between matrices
    tier: Tier = "exact"

    def opened(self, focus: str | None) -> Matrix:
        """The open matrix; where none is open, the one with the most conflict of signs."""
        by_name = {matrix.name: matrix for matrix in self.family.matrices}
        if focus in by_name:
            return by_name[focus]
        values = self.conflicts["sign"].values
        if values.size == 0:
            return self.family.matrices[0]
        most = np.nan_to_num(values, nan=-1.0).max(0)
        return max(self.family.matrices, key=lambda matrix: most[place(self.family, matrix)])


def cumulative_energy(values: np.ndarray) -> np.ndarray:
    """Share of the squared norm held by the first 1, 2, ... directions."""
    squares = np.square(values.astype(np.float64))
    total = squares.sum()
    return np.cumsum(squares) / total if total > 0 else np.zeros_like(squares)


# The usual reading order of a block; kinds not named here follow in file order. "moe" are the experts of a mixture.
KIND_ORDER = ("q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down", "router", "moe gate", "moe up", "moe down")
KINDS = {  # what GPT-2, GPT-NeoX and mixtures call the usual matrices
    "attn.c_attn": "qkv", "attn.c_proj": "o", "mlp.c_fc": "up", "mlp.c_proj": "down",
    "attention.query_key_value": "qkv", "attention.dense": "o", "mlp.dense_h_to_4h": "up", "mlp.dense_4h_to_h": "down",
    "mlp.gate": "router", "mlp.router": "router", "block_sparse_moe.gate": "router",
}  # fmt: skip
MIXTRAL = {"w1": "gate", "w3": "up", "w2": "down"}


def family_of(names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """The pictured matrices of a model: two-dimensional tensors inside a layer; `names` are the experts'.

    The experts of a mixture (MoE) share one row a kind: a cell is their mean, and opens the first of them.
    """
    matrices = []
    for name, shape in shapes.items():
        layer = layer_of(name)
        if layer is not None and is_matrix(name, shape):
            matrices.append(Matrix(name, layer, _kind(name), (shape[0], shape[1])))
    kinds = list(dict.fromkeys(matrix.kind for matrix in matrices))
    kinds.sort(key=lambda kind: KIND_ORDER.index(kind) if kind in KIND_ORDER else len(KIND_ORDER))
    return Family(tuple(names), tuple(matrices), tuple(kinds), max((m.layer + 1 for m in matrices), default=0))


def _kind(name: str) -> str:
    """`model.layers.4.mlp.down_proj.weight` -> `down`; unusual names keep what tells them apart."""
    inside = re.split(r"\.\d+\.", name, maxsplit=1)[1].removesuffix(".weight")
    if inside in KINDS:
        return KINDS[inside]
    if expert := re.search(r"\bexperts\.\d+\.(.+)", inside):
        short = expert[1].removesuffix("_proj")
        return f"moe {MIXTRAL.get(short, short)}"
    short = inside.rsplit(".", 1)[-1].removesuffix("_proj")
    return short if short in KIND_ORDER and inside.count(".") == 1 else inside


def place(family: Family, matrix: Matrix) -> tuple[int, int]:
    """Row and column of a matrix in every picture."""
    return family.kinds.index(matrix.kind), matrix.layer


def gather(family: Family, rows: int, found: Iterable[tuple[Matrix, Sequence[float]]]) -> np.ndarray:
    """Float32 (rows, kinds, layers) of each matrix's values, one for each row; several in one place give their mean."""
    each = list(found)
    at = tuple(np.array([place(family, matrix) for matrix, _ in each], dtype=np.int64).reshape(-1, 2).T)
    values = np.array([own for _, own in each], dtype=np.float64).reshape(len(each), rows)
    total = np.zeros((len(family.kinds), family.n_layers, rows))
    n, there = np.zeros(total.shape), np.isfinite(values)
    np.add.at(total, at, np.where(there, values, 0))
    np.add.at(n, at, there)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32).transpose(2, 0, 1)


def early_look(
    digest: str,
    family: Family,
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    seconds: float,
    tier: Tier,
) -> Look:
    """Maps alone, from the signs and the cosines of every pair of experts by tensor name."""
    rows = family.pairs
    signs, cosines = (
        gather(family, len(rows), ((matrix, pairs[matrix.name][i]) for matrix in family.matrices)) for i in range(2)
    )
    conflicts: dict[Measure, Conflict] = {
        "sign": Conflict("sign", rows, signs),
        "cosine": Conflict("cosine", rows, cosines),
    }
    return Look(digest, family, conflicts, {}, seconds, tier=tier)
