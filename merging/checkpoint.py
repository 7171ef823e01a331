"""A model's folder on disk: its config, the names, shapes and dtypes of its tensors, and one tensor at a time.

Opening reads headers only. Weights come from safetensors alone: nothing is unpickled and no code of a model is run.
Tensors are read into memory of their own, never mapped: a file cut short meanwhile is an error, not a crash by signal.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.config_checks import contradictions, wrong_fields
from merging.errors import UserError, all_of
from merging.hub_cache import Absent, absent, commit_of
from merging.safetensors_header import Entry
from merging.sources import find_folder, regular_file
from merging.strict_json import read_json
from merging.weight_files import find_weights, unreadable
from merging.words import reason, shown, some

EDGE = 64 << 10  # bytes from each end of a tensor that go into the fingerprint
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32,
    "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Part = Callable[[int, int], Tensor]  # start, stop -> a tensor's flat entries between them
FLOATS = {name: DTYPES[name] for name in ("F32", "F16", "BF16", "F64")}  # the stored types that are merged


@dataclass(frozen=True)
class TensorInfo:
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it: "BF16", "F32", ...


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Header-only until `read` is called. `tensors` is in file order."""

    source: str  # as the recipe names it
    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]
    notices: tuple[str, ...] = ()
    places: Mapping[str, tuple[Path, Entry]] = field(default_factory=dict, repr=False)
    over: "Checkpoint | None" = None  # the whole model below an adapter
    commit: str | None = None  # of a Hub model
    absent: Absent | None = None  # what of a Hub model is not downloaded; its tensors cannot be read

    @property
    def chain(self) -> "tuple[Checkpoint, ...]":
        """Itself, then below an adapter the models that it lies over."""
        return (self, *(self.over.chain if self.over else ()))

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where it lies: an adapter's own folder, then those of the models below it."""
        return tuple(model.folder for model in self.chain)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}

    @property
    def bytes_to_download(self) -> int:
        """0 for a model that is on this machine, its base included."""
        return bytes_to_download([self])

    def read(self, name: str) -> Tensor:
        """The tensor in its own dtype on the CPU, in memory of its own; every number in it is finite."""
        entry = self.places[name][1]
        data = torch.empty(entry.end - entry.start, dtype=torch.uint8)
        with self._filling(name) as fill:
            fill(0, data)
        tensor = data.view(DTYPES[entry.dtype]).reshape(entry.shape)
        if not is_finite(tensor):
            bad = (~torch.isfinite(tensor)).nonzero()
            what = f"{len(bad):,} of its {tensor.numel():,} weights are no finite numbers"
            what += f", the first at {bad[0].tolist()}."
            raise UserError("E_NOT_FINITE", what, where=f"{self.source}: {shown(name)[1:-1]}",
                            do="Use an undamaged copy of the model.")  # fmt: skip
        return tensor

    def is_stored(self, name: str) -> bool:
        """Whether a part of the tensor costs no more than its bytes, because nothing is computed."""
        return True

    @contextmanager
    def parts(self, name: str) -> Iterator[Part]:
        """Read a tensor part by part: the next call reuses the memory of the last. Checked as by `read`."""
        entry = self.places[name][1]
        dtype = DTYPES[entry.dtype]
        buffer = torch.empty(0, dtype=dtype)
        found, data = buffer, buffer.view(torch.uint8)

        with self._filling(name) as fill:

            def part(start: int, stop: int) -> Tensor:
                nonlocal buffer, found, data
                if len(found) != stop - start:  # a block is as long as the last, nearly always
                    if len(buffer) < stop - start:
                        buffer = torch.empty(stop - start, dtype=dtype)
                    found = buffer[: stop - start]
                    data = found.view(torch.uint8)
                fill(start * dtype.itemsize, data)
                if not is_finite(found):
                    self.read(name)  # raises, and says where
                return found

            yield part

    @contextmanager
    def _filling(self, name: str) -> Iterator[Callable[[int, Tensor], None]]:
        """The tensor's file, open: `fill(at, data)` reads its bytes from `at` on into `data`."""
        if self.absent:
            raise UserError("E_NOT_DOWNLOADED", "only the headers of this model are on this machine.",
                            where=self.source,
                            do=f"Run: python -m merging download {self.source.rpartition('+')[2]}")  # fmt: skip
        path, entry = self.places[name]
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._changed(path, reason(error)) from error
        with file:

            def fill(at: int, data: Tensor) -> None:
                left, at = data.numpy().data, entry.start + at
                try:  # a block's worth of work is small beside a context manager's
                    while left and (n := os.preadv(file.fileno(), [left], at)):
                        left, at = left[n:], at + n
                except OSError as error:
                    raise self._changed(path, reason(error)) from error
                if left:
                    raise self._changed(path, "the file became shorter while it was read")

            yield fill

    def low_rank(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Float32 `b` (m, r) and `a` (r, n) where this tensor is that of `over` plus `b @ a`, else None."""
        return None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every tensor's name, dtype, shape and 64 KiB from each end; the same however it is sharded."""
        if self.absent:  # the Hub's own hashes stand for the bytes that are not here
            return hashlib.sha256("\0".join(self.absent.hashes).encode()).hexdigest()
        try:
            stamps = tuple(_stamp(path) for path in sorted({path for path, _ in self.places.values()}))
            return _content(stamps, tuple(sorted(self.places.items())))
        except OSError as error:
            raise self._changed(Path(error.filename or self.folder), reason(error)) from error

    def _changed(self, path: Path, why: str) -> UserError:
        return UserError("E_SOURCE_CHANGED", f"{why}.", where=f"{self.source}/{path.name}",
                         do="Leave the source alone while it is merged, and start again.")  # fmt: skip


Stamp = tuple[Path, int, int, int, int]


def _stamp(path: Path) -> Stamp:
    """What changes when a file is replaced or written to."""
    found = path.stat()
    return path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _stamps(home: Path) -> Iterator[Stamp]:
    for path in sorted(home.iterdir()):
        with suppress(OSError):  # a link to nothing is told by whoever reads it
            yield _stamp(path)


@lru_cache(maxsize=64)  # of adapters, which are opened anew, and of folders spelled in several ways
def _content(stamps: tuple[Stamp, ...], places: tuple[tuple[str, tuple[Path, Entry]], ...]) -> str:
    digest = hashlib.sha256()
    with ExitStack() as stack:
        files = {path: stack.enter_context(path.open("rb")) for path, *_ in stamps}
        for name, (path, entry) in places:
            digest.update(f"{name}\0{entry.dtype}\0{entry.shape}\0".encode())
            for start in (entry.start, max(entry.start, entry.end - EDGE)):
                files[path].seek(start)
                digest.update(files[path].read(min(EDGE, entry.end - start)))
    return digest.hexdigest()


def bytes_to_download(models: Iterable[Checkpoint]) -> int:
    """Of these models and those below adapters, each folder once."""
    parts = {part.folder: part.absent for model in models for part in model.chain}
    return sum(absent.n_bytes for absent in parts.values() if absent)


def parts_of(tensor: Tensor) -> Part:
    """A tensor in memory, part by part."""
    flat = tensor.flatten()
    return lambda start, stop: flat[start:stop]


def is_finite(tensor: Tensor) -> bool:
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    if isfinite(tensor.sum().item()):  # what is no number makes the sum none, twice as fast; large ones may as well
        return True
    low, high = tensor.aminmax()  # NaN wins in both, and no temporary as large as the tensor is made
    return isfinite(low.item()) and isfinite(high.item())


def open_checkpoint(source: str, folder: Path) -> Checkpoint:
    """Open a model for reading; a relative source lies beside `folder`. Raises one error that lists every problem."""
    home = find_folder(source, folder)
    return _opened(source, home, tuple(_stamps(home)))


@lru_cache(maxsize=64)  # a slider move opens every model anew
def _opened(source: str, home: Path, stamps: tuple[Stamp, ...]) -> Checkpoint:
    problems: list[UserError] = []
    config = _config(home, source, problems)
    missing = absent(home)
    places = find_weights(home, source, problems, missing.sizes if missing else {})
    tensors = {name: TensorInfo(entry.shape, entry.dtype) for name, (_, entry) in places.items()}
    problems += [UserError("E_QUANTISED", what, where=source, do="Use a copy in bfloat16, float16 or float32.")
                 for what in _quantised(config, tensors)]  # fmt: skip
    if not problems:
        shapes = {name: info.shape for name, info in tensors.items()}
        problems += [UserError("E_CONFIG", f"config.json contradicts the weights: {what}", where=source,
                               do="Use the config.json that belongs to these weights.")
                     for what in contradictions(config, shapes)]  # fmt: skip
    if problems:
        raise all_of(problems, kept="")
    notices = (f"{source}: its own code (auto_map) is never run.",) if "auto_map" in config else ()
    return Checkpoint(source, home, config, tensors, notices, places, commit=commit_of(home), absent=missing)


def _config(home: Path, source: str, problems: list[UserError]) -> dict[str, Any]:
    where = f"{source}/config.json"
    try:
        path = regular_file(home, "config.json")
        config = read_json(path) if path else None
    except (ValueError, OSError) as error:
        problems.append(unreadable("E_CONFIG", where, error))
        return {}
    if path is None:
        problems.append(UserError("E_CONFIG", "there is no config.json, so this is not a model's folder.", where=source,
                                  do="Give the folder that holds config.json and the weights."))  # fmt: skip
        return {}
    if not isinstance(config, dict):
        problems.append(UserError("E_CONFIG", "the file is not a JSON object.", where=where))
        return {}
    problems += [UserError("E_CONFIG", what, where=where) for what in wrong_fields(config)]
    return config


def _quantised(config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> list[str]:
    found = sorted({info.dtype for info in tensors.values() if info.dtype not in DTYPES})
    packed = [name for name, info in tensors.items() if info.dtype in ("I8", "U8", "I32") and name.endswith("weight")]
    return [
        what
        for what, wrong in (
            (f"the model is quantised ({_quantisation(config)}).", config.get("quantization_config") is not None),
            (f"the weights are stored as {', '.join(found)}.", found),
            (f"these weights are packed integers: {some(packed)}.", packed),
        )
        if wrong
    ]


def _quantisation(config: dict[str, Any]) -> str:
    details = config.get("quantization_config")
    method = details.get("quant_method") if isinstance(details, dict) else None
    return f"quantization_config: {shown(method)[1:-1]}" if isinstance(method, str) else "quantization_config"
