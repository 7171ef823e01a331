"""A family's weights as the live merge holds them: a small family whole, of a big one the factors alone.

Whole: float32 deltas and what was derived from them. Lean: deltas are read when entries are asked for, and the leading
triplets lie in float16 (an error of 3e-4, a twentieth of what rounding to bfloat16 does) in files that are mapped.
"""

import ctypes
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from math import floor, prod
from typing import Any, cast

import torch
from torch import Tensor

from merging.checkpoint import DTYPES, Checkpoint
from merging.compute import family_deltas
from merging.decompose import SVD, rounding_noise
from merging.layers import layer_of
from merging.memo import Memo
from merging.spectral import Factors
from merging.store import Store, key_of

WHOLE = 512 << 20  # bytes of deltas and all their triplets up to which a family is held whole
BUDGET = 0.4  # of a model's bytes: what the factors of a lean family may take
DISK = 8 << 30  # bytes of factors kept on disk, of all families; the least used go, but not those of the one on screen
STOPS = 8  # folds kept of a matrix of a whole family at least: going back to a rank costs no more than a weight
AHEAD = 384 << 20  # bytes of such folds up to which more are kept, and prepared in idle time
BESIDE = 3  # folds kept of the open matrix of a lean family: that of the rank on screen and of the stops beside it
VERSION = 1  # of what the files hold


class Deltas:
    """Stands for deltas (T, m, n) that are read when entries are asked for, and let go by `release`."""

    dtype = torch.float32

    def __init__(self, shape: tuple[int, ...], read: Callable[[], Tensor], device: str = "cpu") -> None:
        self.shape, self.device = torch.Size(shape), torch.device(device)
        self._read = read
        self._tensor: Tensor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | list[int]) -> "Tensor | Deltas":
        if isinstance(index, int):
            return self.tensor()[index]
        return Deltas((len(index), *self.shape[1:]), lambda: self.tensor()[index], str(self.device))

    def tensor(self) -> Tensor:
        if self._tensor is None:
            self._tensor = self._read()
        return self._tensor

    def release(self) -> None:
        self._tensor = None


class Packed(SVD):
    """Triplets whose u and v lie in float16 in host memory; reading either makes it float32, where s lies."""

    def __init__(self, u: Tensor, s: Tensor, v: Tensor) -> None:
        for name, value in (("_u", u), ("s", s), ("_v", v)):
            object.__setattr__(self, name, value)

    @property
    def u(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._u.to(self.s.device).float()  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def v(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._v.to(self.s.device).float()  # pyright: ignore[reportAttributeAccessIssue]

    def head(self, k: int | None) -> "Packed":
        own: Any = self
        return Packed(own._u[:, :k], self.s[:k], own._v[:, :k])


class Resident:
    """Base tensors and factors of a family by tensor name. No two threads may work on one matrix at a time.

    lean: the family is too large to be held whole.
    share: of a lean family, how much of a matrix's full rank the leading triplets of all experts together may take.
    base_norm: gives the norm of a base tensor, or None where it would have to be read for that.
    sketched: the triplets are a first picture's, of a lean family; their files are never taken for exact ones.
    stops: of a whole family, how many folds of a matrix are kept, with what the pictures show of them.
    device: where deltas, triplets of a whole family and folds lie; a lean family's triplets stay mapped in host memory.
    """

    def __init__(
        self, base: Checkpoint, experts: Sequence[Checkpoint], store: Store | None, *, lean: bool,
        share: float, base_norm: Callable[[str], float | None], sketched: bool = False, stops: int = STOPS,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self._base, self._experts, self._store, self.lean = base, tuple(experts), store, lean
        self._sketched, self.device = sketched, device
        self.stops = BESIDE if lean else stops
        pairs = len(experts) * (len(experts) - 1) // 2
        self._most: dict[Hashable, int] = dict.fromkeys(("fold", "crossed", "parts", "spectra", "pairs"), stops)
        self._most |= dict.fromkeys(("shared", "interference"), stops * max(1, pairs))
        self.share = share if lean else 1.0
        self.fingerprints = tuple(expert.fingerprint for expert in experts)
        self._base_norm = base_norm
        self._whole: dict[str, tuple[Tensor, Factors]] = {}
        self._lean: dict[str, Factors] = {}

    def place(self, name: str) -> str:
        """Where a tensor is merged: a large family's embedding and head, billions of bytes a model, in host memory."""
        return "cpu" if self.lean and layer_of(name) is None else self.device

    def read(self, name: str) -> tuple[Tensor, Factors]:
        """The base's tensor and the experts' deltas themselves; of a lean family they are not kept."""
        if name in self._whole:
            return self._whole[name]
        base, factors = family_deltas(self._base, self._experts, name, self.place(name))
        factors = replace(factors, sketched=self._sketched)
        if self.lean:
            return base, factors
        ahead = factors.full_rank // len(self._experts) if base.dim() == 2 else 0
        self._whole[name] = base, replace(factors, ahead=ahead, memo=Memo(self._most))
        return self._whole[name]

    def matrix(self, name: str) -> Factors:
        """The factors of a matrix; of a lean family their deltas are a `Deltas`."""
        if not self.lean:
            return self.read(name)[1]
        if name not in self._lean:
            self._lean[name] = self._held(name)
        return self._lean[name]

    def has(self, name: str) -> bool:
        """Whether the factors of a matrix are there or cost little, as those of a whole family and of adapters do."""
        store, experts = self._store, list(enumerate(self._experts))
        if not self.lean or name in self._lean:
            return True
        return all(expert.over or (store and store.has(self._key(name, t))) for t, expert in experts)

    def forget(self) -> None:
        """Let go all factors of a lean family, and what its store holds."""
        self._lean.clear()
        if self._store is not None:
            self._store.trim(0)

    def settle(self, name: str, *, shown: bool = False) -> None:
        """Of a lean family: let go a matrix's deltas, which can be read again, and the folds of earlier moves."""
        if self.lean:
            factors = self._lean[name]
            cast("Deltas", factors.deltas).release()
            for kind in ("fold", "crossed"):
                factors.memo.trim(kind, BESIDE if shown else int(not self._sketched))

    def most(self, shape: tuple[int, ...]) -> int:
        """How many triplets each expert has of a matrix of this shape."""
        return max(1, floor(self.share * min(shape) / len(self._experts) + 1e-9))

    def trim(self) -> None:
        """Of a lean family: give back memory that nothing uses, and what of the disk is over its limit."""
        if self.lean:
            give_back()
        if self._store is not None:
            own = sum(2 * sum(f.deltas.shape[1:]) * f.ahead * len(self._experts) for f in self._lean.values())
            self._store.trim(max(DISK, own + own // 16))

    def _held(self, name: str) -> Factors:
        info, base_norm, n = self._base.tensors[name], self._base_norm(name), len(self._experts)
        shape = (info.shape[0], info.shape[1])
        dense = cache(lambda: self.read(name)[1])
        deltas = cast("Tensor", Deltas((n, *shape), lambda: self.read(name)[1].deltas, self.device))
        most = self.most(shape)
        limit = most if self.share < 1 else 0
        if base_norm is None or any(expert.over for expert in self._experts):
            held = replace(dense(), deltas=deltas, ahead=most, most=limit, memo=Memo())
        else:
            noise = rounding_noise(DTYPES[info.dtype], base_norm / prod(shape) ** 0.5, *shape)
            held = Factors(deltas, noise, ahead=most, most=limit, sketched=self._sketched)
        for t, low in enumerate(held.low):
            if low is None:  # an adapter's triplets are found anew as fast as they are read
                triplets, spectrum = self._triplets(name, t, shape, most, dense)
                held.memo.put(("svd", t, "raw"), triplets)
                held.memo.put(("spectrum", t), spectrum)
        return held

    def _key(self, name: str, t: int) -> str:
        tier = "sketch" if self._sketched else "factors"
        return key_of(tier, VERSION, self._base.fingerprint, self._experts[t].fingerprint, name)

    def _triplets(
        self, name: str, t: int, shape: tuple[int, int], k: int, dense: Callable[[], Factors]
    ) -> tuple[Packed, Tensor]:
        key = self._key(name, t)
        found = self._store.load(key) if self._store else None
        if found is None or not _fits(found, *shape, k):
            made, spectrum = dense().svd(t, k), dense().spectrum(t)
            found = {"u": made.u.half(), "s": made.s.clone(), "v": made.v.half(), "spectrum": spectrum}
            found = {part: tensor.cpu() for part, tensor in found.items()}
            if self._store:
                self._store.save(key, found)
                found = self._store.load(key) or found  # mapped, it takes no memory of its own
        return Packed(found["u"], found["s"].to(self.device), found["v"]), found["spectrum"]


def _fits(found: dict[str, Tensor], m: int, n: int, k: int) -> bool:
    """Whether a file holds at least k triplets of an (m, n) matrix."""
    if found.keys() != {"u", "s", "v", "spectrum"} or found["s"].dim() != 1:
        return False
    many = len(found["s"])
    shapes = {"u": (m, many), "v": (n, many), "spectrum": (min(m, n),)}
    fits = many >= k and all(tuple(found[part].shape) == shape for part, shape in shapes.items())
    return fits and all(bool(torch.isfinite(found[part]).all()) for part in ("s", "spectrum"))


def give_back() -> None:
    """To the system, what has been freed: glibc keeps it, of a move's matrices more than the move leaves behind."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, or another system
        ctypes.CDLL(None).malloc_trim(0)


def room_for(base: Checkpoint, matrices: Sequence[tuple[int, int]], budget: float) -> float:
    """The share of full rank, in whole hundredths, whose float16 factors take `budget` times the base's bytes.

    How many experts divide it makes no difference: k = share r / T triplets of T experts are (m + n) share r numbers.
    """
    whole = 2 * sum((m + n) * min(m, n) for m, n in matrices)
    return min(1.0, floor(100 * budget * stored_bytes(base) / whole) / 100) if whole else 1.0


def stored_bytes(model: Checkpoint) -> int:
    return sum(prod(info.shape) * DTYPES[info.dtype].itemsize for info in model.tensors.values())


def limits(size: int, room: int | None) -> tuple[int, float]:
    """`WHOLE` and `BUDGET`, or less of them where all must lie in the `room` bytes of a device.

    size: bytes of a model. A whole family takes up to four times its deltas and triplets with the folds beside it, the
    float32 folds of a lean one twice its float16 factors.
    """
    return (WHOLE, BUDGET) if room is None else (min(WHOLE, room // 4), min(BUDGET, room / (2 * size)))


def stops_for(matrices: Sequence[tuple[int, int]]) -> int:
    """How many folds of every matrix take AHEAD bytes at most, were all of full rank; STOPS at least."""
    return max(STOPS, AHEAD // max(1, folds_bytes(matrices)))


def folds_bytes(matrices: Sequence[tuple[int, int]], times: float = 1) -> int:
    """Bytes of float32 folds of these matrices: `times` those of full rank."""
    return int(4 * times * sum((m + n) * min(m, n) for m, n in matrices))


def needed(shapes: Sequence[tuple[int, ...]], experts: int) -> int:
    """Bytes of float32 deltas and all triplets of these tensors."""
    entries = sum(prod(shape) + (sum(shape) * min(shape) if len(shape) == 2 else 0) for shape in shapes)
    return 4 * experts * entries
