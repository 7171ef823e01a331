"""A model's folder on disk: its config, the names, shapes and dtypes of its tensors, and one tensor at a time.

Opening reads headers only. Weights come from safetensors alone: nothing is unpickled and no code of a model is run.
Tensors are read into memory of their own, never mapped: a file cut short meanwhile is an error, not a crash by signal.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from merging.config_checks import contradictions, wrong_fields
from merging.errors import UserError, all_of
from merging.safetensors_header import Entry, read_header
from merging.sources import find_folder, regular_file
from merging.strict_json import read_json, shown, some

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
INDEX_LIMIT = 64 << 20
EDGE = 64 << 10  # bytes from each end of a tensor that go into the fingerprint
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
UNQUANTISED = "Use the model's original in bfloat16, float16 or float32."


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

    def read(self, name: str) -> Tensor:
        """The tensor in its own dtype on the CPU, in memory of its own."""
        path, entry = self.places[name]
        data = torch.empty(entry.end - entry.start, dtype=torch.uint8)
        try:
            with path.open("rb") as file:
                complete = _fill(file, entry.start, memoryview(data.numpy()))
        except OSError as error:
            raise self._changed(path, error.strerror or "it cannot be read") from error
        if not complete:
            raise self._changed(path, "it became shorter while it was read")
        return data.view(DTYPES[entry.dtype]).reshape(entry.shape)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every tensor's name, dtype, shape and 64 KiB from each end; the same however it is sharded."""
        digest = hashlib.sha256()
        files: dict[Path, BinaryIO] = {}
        try:
            for name in sorted(self.places):
                path, entry = self.places[name]
                file = files.get(path) or files.setdefault(path, path.open("rb"))
                digest.update(f"{name}\0{entry.dtype}\0{entry.shape}\0".encode())
                for start in sorted({entry.start, max(entry.start, entry.end - EDGE)}):
                    file.seek(start)
                    digest.update(file.read(min(EDGE, entry.end - start)))
        except OSError as error:
            raise UserError("E_SOURCE_CHANGED", f"its weights cannot be read: {error.strerror}.", where=self.source) from error
        finally:
            for file in files.values():
                file.close()
        return digest.hexdigest()

    def _changed(self, path: Path, why: str) -> UserError:
        return UserError("E_SOURCE_CHANGED", f"{why}.", where=f"{self.source}/{path.name}",
                         do="Leave the source alone while it is merged, and start again.")  # fmt: skip


def open_checkpoint(source: str, folder: Path) -> Checkpoint:
    """Open a model for reading; a relative source lies beside `folder`. Raises one error that lists every problem."""
    home = find_folder(source, folder)
    problems: list[UserError] = []
    config = _config(home, source, problems)
    places = _weights(home, source, problems)
    tensors = {name: TensorInfo(entry.shape, entry.dtype) for name, (_, entry) in places.items()}
    problems += _quantised(config, tensors, source)
    if not problems:
        shapes = {name: info.shape for name, info in tensors.items()}
        problems += [UserError("E_CONFIG", f"config.json contradicts the weights: {what}", where=source,
                               do="Use the config.json that belongs to these weights.")
                     for what in contradictions(config, shapes)]  # fmt: skip
    if problems:
        raise all_of(problems)
    notices = (f"{source}: its own code (auto_map) is never run.",) if "auto_map" in config else ()
    return Checkpoint(source, home, config, tensors, notices, places)


def _fill(file: BinaryIO, start: int, target: memoryview) -> bool:
    file.seek(start)
    done = 0
    while done < len(target):
        n = file.readinto(target[done:])  # pyright: ignore[reportAttributeAccessIssue]
        if not n:
            return False
        done += n
    return True


def _config(home: Path, source: str, problems: list[UserError]) -> dict[str, Any]:
    where = f"{source}/config.json"
    try:
        path = regular_file(home, "config.json")
        config = read_json(path) if path else None
    except (ValueError, OSError) as error:
        problems.append(_unreadable("E_CONFIG", where, error))
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


def _weights(home: Path, source: str, problems: list[UserError]) -> dict[str, tuple[Path, Entry]]:
    names = {path.name for path in home.iterdir()}
    if SINGLE in names and INDEX in names:
        problems.append(UserError("E_INDEX", f"there are both {SINGLE} and {INDEX}, so it is unclear which is meant.",
                                  where=source, do="Remove the one that does not belong to this model."))  # fmt: skip
    elif SINGLE in names:
        return {name: place for name, place in _shard(home, SINGLE, source, problems).items()}
    elif INDEX in names:
        return _sharded(home, source, names, problems)
    else:
        problems.append(_no_weights(names, source))
    return {}


def _shard(home: Path, file: str, source: str, problems: list[UserError]) -> dict[str, tuple[Path, Entry]]:
    where = f"{source}/{shown(file)[1:-1]}"
    try:
        path = regular_file(home, file)
        if path is None:
            raise ValueError("the index names this file, but it is not there")
        return {name: (path, entry) for name, entry in read_header(path, where).items()}
    except UserError as problem:
        problems.append(problem)
    except (ValueError, OSError) as error:
        problems.append(_unreadable("E_WEIGHTS", where, error))
    return {}


def _sharded(home: Path, source: str, names: set[str], problems: list[UserError]) -> dict[str, tuple[Path, Entry]]:
    where = f"{source}/{INDEX}"
    try:
        path = regular_file(home, INDEX)
        index = read_json(path, INDEX_LIMIT) if path else None
    except (ValueError, OSError) as error:
        problems.append(_unreadable("E_INDEX", where, error))
        return {}
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not (isinstance(listed, dict) and listed and all(isinstance(file, str) for file in listed.values())):
        problems.append(UserError("E_INDEX", "the file has no weight_map of tensor names to file names.", where=where))
        return {}
    files = sorted(set(listed.values()))
    outside = [file for file in files if not re.fullmatch(r"[\w][\w.-]*\.safetensors", file)]
    if outside:
        problems.append(UserError("E_INDEX", f"it names what is not a safetensors file in this folder: {some(outside)}.",
                                  where=where))  # fmt: skip
    unlisted = sorted(name for name in names if re.fullmatch(r"model-.*\.safetensors", name) and name not in files)
    if unlisted:
        problems.append(UserError("E_INDEX", f"it does not name {some(unlisted)}.", where=where,
                                  do="Remove the files that do not belong to this model."))  # fmt: skip
    places: dict[str, tuple[Path, Entry]] = {}
    twice: list[str] = []
    for file in files:
        if file not in outside:
            found = _shard(home, file, source, problems)
            twice += sorted(found.keys() & places.keys())
            places |= found
    for what, wrong in (
        ("these tensors are in two files", twice),
        ("it lists tensors that no file holds", sorted(listed.keys() - places.keys())),
        ("it does not list these tensors of its files", sorted(places.keys() - listed.keys())),
        ("these tensors lie in another file than it says",
         sorted(n for n in listed.keys() & places.keys() if places[n][0] != (home / listed[n]).resolve() and n not in twice)),
    ):  # fmt: skip
        if wrong and not outside:
            problems.append(UserError("E_INDEX", f"{what}: {some(wrong)}.", where=where, do="Download the model again."))
    return places


def _quantised(config: dict[str, Any], tensors: Mapping[str, TensorInfo], source: str) -> list[UserError]:
    if config.get("quantization_config") is not None:
        return [UserError("E_QUANTISED", "the model is quantised (quantization_config).", where=source, do=UNQUANTISED)]
    found = sorted({info.dtype for info in tensors.values() if info.dtype not in DTYPES})
    packed = [name for name, info in tensors.items() if info.dtype in ("I8", "U8", "I32") and name.endswith("weight")]
    if found:
        return [UserError("E_QUANTISED", f"the weights are stored as {', '.join(found)}.", where=source, do=UNQUANTISED)]
    if packed:
        return [UserError("E_QUANTISED", f"these weights are packed integers: {some(packed)}.", where=source, do=UNQUANTISED)]
    return []


def _no_weights(names: set[str], source: str) -> UserError:
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        return UserError("E_PICKLE_REFUSED", "the weights are a Python pickle (.bin or .pt), which can run code and is never "
                         "opened.", where=source, do="Use a safetensors copy of the model, or convert it where you trust it.")  # fmt: skip
    if "adapter_config.json" in names:
        return UserError("E_ADAPTER", "this is a LoRA adapter, not a whole model.", where=source,
                         do="Merge it into its base model first and give that folder.")  # fmt: skip
    if any(re.fullmatch(r"model-.*\.safetensors", name) for name in names):
        return UserError("E_INDEX", f"there are shards but no {INDEX}.", where=source, do="Download the model again.")
    return UserError("E_NO_WEIGHTS", f"there is no {SINGLE} and no {INDEX}.", where=source,
                     do="Give the folder that holds config.json and the weights.")  # fmt: skip


def _unreadable(code: str, where: str, error: ValueError | OSError) -> UserError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return UserError(code, f"{why}.", where=where)
