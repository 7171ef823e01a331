"""What one pass over a family's deltas tells of every matrix, kept on disk: norms, cosines, signs, magnitudes.

Every map of signs and cosines and every threshold on magnitudes follows from it without the models.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from merging.blocks import BLOCK, CODES, Counts
from merging.checkpoint import Checkpoint
from merging.look import Tail
from merging.store import Store, key_of

VERSION = 2  # of what the files hold
PARTS = ("rows", "codes", "counts", "sums", "least")  # of `DeltaFacts`, in a file


@dataclass(frozen=True, eq=False)
class DeltaFacts:
    """One expert's delta on one matrix (m, n).

    rows: (m,) float32 norms of the rows. codes, counts, sums: the magnitudes that occur, by the upper 16 bits of their
    float32 form; how many entries each code has, and their sum. Magnitudes are told apart to 1 part in 128. Nearly all
    differences of bfloat16 weights have their code's least magnitude; where the base is close to 0 some need more bits.
    least: how many entries have their code's least magnitude.
    """

    rows: Tensor
    codes: Tensor
    counts: Tensor
    sums: Tensor
    least: Tensor

    @cached_property
    def norm(self) -> float:
        return float(self.rows.double().square().sum().sqrt())

    @cached_property
    def magnitudes(self) -> Counts:
        """The counts, for thresholds on magnitudes that no pass has to look for."""
        return Counts(self.codes.int().numpy(), self.counts.numpy(), self.least.numpy())

    def tail(self, model: str, base_norm: float, *, kappa: float, eta: float) -> Tail:
        """As `analysis.tail`, without the delta."""
        n, mass = int(self.counts.sum()), float(self.sums.sum())
        sizes = self.sums / self.counts
        mean, mean_square = mass / n, self.norm**2 / n
        theta = mean + kappa * math.sqrt(max(0.0, mean_square - mean**2))
        beyond, below = sizes > theta, sizes < eta * math.sqrt(mean_square)
        return Tail(
            model,
            threshold=theta,
            entries=float(self.counts[beyond].sum()) / n,
            mass=float(self.sums[beyond].sum()) / mass if mass > 0 else 0.0,
            sparsity=float(self.counts[below].sum()) / n,
            norm_ratio=self.norm / base_norm if base_norm > 0 else math.inf,
        )


@dataclass(frozen=True)
class PairFacts:
    """Two deltas on one matrix: inner product; entries that both moved, and moved in opposite directions."""

    dot: float
    both: float
    opposite: float

    @property
    def sign_conflict(self) -> float:
        return self.opposite / self.both if self.both else math.nan

    def cosine(self, a: float, b: float) -> float:
        """Given the norms of the two."""
        return self.dot / (a * b) if a * b > 0 else math.nan


@dataclass(frozen=True)
class MatrixFacts:
    base_norm: float
    deltas: tuple[DeltaFacts, ...]
    pairs: Mapping[tuple[int, int], PairFacts]

    def cosine(self, a: int, b: int) -> float:
        return self.pairs[a, b].cosine(self.deltas[a].norm, self.deltas[b].norm)


def facts_of(base: Tensor, deltas: Tensor) -> MatrixFacts:
    """Measure one matrix: `base` (m, n) as stored, `deltas` (T, m, n) float32, on any device; facts lie on the CPU."""
    pairs = pairs_of(deltas.flatten(1))[1]
    return MatrixFacts(float(base.float().norm()), tuple(_delta_facts(delta) for delta in deltas), pairs)


def pairs_of(flat: Tensor) -> tuple[Tensor, dict[tuple[int, int], PairFacts]]:
    """Of deltas (T, entries): all inner products (T, T) in float64, and every pair of them."""
    n = len(flat)
    dots, agree, both = torch.zeros(3, n, n, dtype=torch.float64, device=flat.device)
    for at in range(0, flat.shape[1], BLOCK):  # a block's counts are whole numbers that float32 holds exactly
        block = flat[:, at : at + BLOCK]
        signs = block.sign()
        dots += block @ block.T
        agree += signs @ signs.T
        signs.abs_()
        both += signs @ signs.T
    dots, agree, both = dots.cpu(), agree.cpu(), both.cpu()
    return dots, {
        (a, b): PairFacts(float(dots[a, b]), float(both[a, b]), float(both[a, b] - agree[a, b]) / 2)
        for a, b in combinations(range(n), 2)
    }


def _delta_facts(delta: Tensor) -> DeltaFacts:
    counts, more = torch.zeros(2, CODES, dtype=torch.int64, device=delta.device)
    beyond = torch.zeros(CODES, dtype=torch.float64, device=delta.device)
    for block in delta.reshape(-1).split(BLOCK):
        bits = block.view(torch.int32)
        counts += torch.bincount(_codes(bits), minlength=CODES)
        fine = bits[_nonzero(bits & 0xFFFF)]  # few, where bfloat16 numbers were subtracted
        if len(fine):
            more += torch.bincount(_codes(fine), minlength=CODES)
            beyond += torch.bincount(_codes(fine), weights=(fine & 0xFFFF).double(), minlength=CODES)
    counts, more, beyond = counts.cpu(), more.cpu(), beyond.cpu()
    there = counts.nonzero().flatten()
    sizes = (there.int() << 16).view(torch.float32).double()
    steps = torch.exp2((there >> 7).clamp(min=1).double() - 150)  # between neighbouring numbers of a code
    return DeltaFacts(
        delta.norm(dim=1).cpu(),
        there.to(torch.int16),
        counts[there],
        sizes * counts[there] + steps * beyond[there],
        counts[there] - more[there],
    )


def _codes(bits: Tensor) -> Tensor:
    return (bits >> 16) & 0x7FFF


def _nonzero(x: Tensor) -> Tensor:
    """Where a vector is not 0: numpy finds it the fastest, in a mask."""
    return torch.from_numpy(np.flatnonzero(x.numpy() != 0)) if x.device.type == "cpu" else x.nonzero().flatten()


class Profile:
    """The facts of every matrix of a family that is known so far; whole ones outlive the process in `store`.

    Experts and pairs have a file each, so that a family which changes by one expert keeps what does not concern it.
    """

    def __init__(self, base: Checkpoint, experts: Sequence[Checkpoint], names: Sequence[str], store: Store | None):
        self._names = list(names)
        self._store = store
        self._found: dict[str, MatrixFacts] = {}
        self._lock = Lock()
        prints = [expert.fingerprint for expert in experts]
        self._keys = [key_of("delta", VERSION, base.fingerprint, each) for each in prints]
        self._pairs = {
            (a, b): key_of("pair", VERSION, base.fingerprint, sorted((prints[a], prints[b])))
            for a, b in combinations(range(len(prints)), 2)
        }
        self._kept = self._load()

    def get(self, name: str) -> MatrixFacts | None:
        return self._found.get(name)

    @property
    def whole(self) -> bool:
        """Whether every matrix is known."""
        return len(self._found) == len(self._names)

    def base_norm(self, name: str) -> float | None:
        return self._found[name].base_norm if name in self._found else None

    def learn(self, name: str, base: Tensor, deltas: Tensor) -> MatrixFacts:
        """The facts of a matrix, measured if they are not known; written once all matrices are."""
        if name not in self._found:
            self._found[name] = facts_of(base, deltas)
        with self._lock:
            if not self._kept and self.whole:
                self._kept = True
                self._save()
        return self._found[name]

    def _save(self) -> None:
        if self._store is None:
            return
        for t, key in enumerate(self._keys):
            tensors = {}
            for name, found in self._found.items():
                facts = found.deltas[t]
                tensors |= {f"{name}.{part}": getattr(facts, part) for part in PARTS}
                tensors[f"{name}.base"] = torch.tensor(found.base_norm, dtype=torch.float64)
            self._store.save(key, tensors)
        for pair, key in self._pairs.items():
            each = {name: found.pairs[pair] for name, found in self._found.items()}
            numbers = {name: [facts.dot, facts.both, facts.opposite] for name, facts in each.items()}
            self._store.save(key, {k: torch.tensor(value, dtype=torch.float64) for k, value in numbers.items()})

    def _load(self) -> bool:
        """Whether all files are there and whole; the facts are then those of the files."""
        if self._store is None:
            return False
        try:
            experts = [self._store.load(key) or {} for key in self._keys]
            pairs = {pair: self._store.load(key) or {} for pair, key in self._pairs.items()}
            for name in self._names:
                deltas = tuple(DeltaFacts(*(file[f"{name}.{part}"] for part in PARTS)) for file in experts)
                numbers = {pair: PairFacts(*file[name].tolist()) for pair, file in pairs.items()}
                self._found[name] = MatrixFacts(float(experts[0][f"{name}.base"]), deltas, numbers)
        except (KeyError, TypeError, ValueError, RuntimeError):  # files of another making
            self._found.clear()
            return False
        return True
