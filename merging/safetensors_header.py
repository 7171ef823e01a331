"""The header of a safetensors file, checked before anything believes it. Knows nothing of models or torch.

Stricter than the format's own library: also no name twice, no field of its own, and a header of 16 MiB at most.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.errors import UserError
from merging.strict_json import parse_json
from merging.words import shown

HEADER_LIMIT = 16 << 20
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8,
}  # fmt: skip
AGAIN = "Download or copy the file again."
# What is often found where weights should be, by its first bytes.
STAND_INS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the weights", "Run `git lfs pull` in its repository."),
    (b"/annex/objects/", "a git-annex pointer, not the weights", "Run `git annex get` in its repository."),
    (b"PK\x03\x04", "a PyTorch pickle, not safetensors", "Convert it to safetensors where you trust it."),
    (b"\x80\x02", "a Python pickle, not safetensors", "Convert it to safetensors where you trust it."),
    (b"<", "a web page, not weights", AGAIN),
    (b"\0" * 64, "zeros from its start on: an unfinished download", AGAIN),
)


@dataclass(frozen=True)
class Entry:
    """One tensor of a file; start and end are bytes from the file's first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path, where: str, size: int | None = None) -> dict[str, Entry]:
    """Every tensor in the file, in the order of their bytes. Raises UserError with `where` as the place.

    `size` is the whole file's, where `path` holds only its header.
    """
    size = path.stat().st_size if size is None else size
    with path.open("rb") as file:
        first = file.read(64)
        _refuse_stand_ins(first, size, where)
        length = int.from_bytes(first[:8], "little")
        if length > HEADER_LIMIT:
            raise _bad(f"the file claims a header of {length:,} bytes; at most {HEADER_LIMIT:,} are read", where)
        if 8 + length > size:
            what = f"the file ends inside its header: {size:,} of at least {8 + length:,} bytes"
            raise _bad(what, where, "E_TRUNCATED")
        file.seek(8)
        data = file.read(length)
    if not data.startswith(b"{"):
        raise _bad("the file is not safetensors", where)
    try:
        header = parse_json(data)
    except ValueError as error:
        raise _bad(f"the header is damaged: {error}", where) from None
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        raise _bad("the header's metadata is not text", where)
    entries = {name: _entry(name, value, 8 + length, where) for name, value in header.items()}
    return _contiguous(entries, 8 + length, size, where)


def _refuse_stand_ins(first: bytes, size: int, where: str) -> None:
    if size == 0:
        raise UserError("E_HEADER", "the file is empty (0 bytes).", where=where, do=AGAIN)
    for start, what, do in STAND_INS:
        if first.startswith(start) and first[8:9] != b"{":  # a header of 640 bytes begins as a pickle does
            raise UserError("E_HEADER", f"the file is {what}.", where=where, do=do)
    if size < 10:
        raise _bad(f"the file is {size} bytes long, too short for a safetensors file", where)


def _entry(name: str, value: Any, data_start: int, where: str) -> Entry:
    if not (isinstance(value, dict) and set(value) == {"dtype", "shape", "data_offsets"}):
        raise _bad(f"the header describes the tensor {shown(name)} in an unknown way", where)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise UserError("E_DTYPE", f"the tensor {shown(name)} is stored as {shown(dtype)}, which cannot be merged.",
                        where=where, do="Use a copy of the model in bfloat16, float16 or float32.")  # fmt: skip
    if not (isinstance(shape, list) and len(shape) <= 16 and all(_is_count(n) for n in shape)
            and math.prod(n or 1 for n in shape) < 1 << 59):  # fmt: skip
        raise _bad(f"the header gives the tensor {shown(name)} an impossible shape", where, "E_SHAPE")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(_is_count(n) for n in offsets)):
        raise _bad(f"the header gives the tensor {shown(name)} impossible offsets", where, "E_OFFSETS")
    start, end = offsets
    n_bytes = math.prod(shape) * ITEM_BYTES[dtype]
    if end - start != n_bytes:
        what = f"the header gives the tensor {shown(name)} {end - start:,} bytes where its shape needs {n_bytes:,}"
        raise _bad(what, where, "E_OFFSETS")
    return Entry(dtype, tuple(shape), data_start + start, data_start + end)


def _contiguous(entries: dict[str, Entry], data_start: int, size: int, where: str) -> dict[str, Entry]:
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    at = data_start
    for name, entry in ordered.items():
        if entry.start != at:
            how = "overlaps the tensor before it" if entry.start < at else "leaves a gap before it"
            raise _bad(f"the tensor {shown(name)} {how}", where, "E_OFFSETS")
        at = entry.end
    if at > size:
        raise _bad(f"the file is cut short: {size:,} of {at:,} bytes", where, "E_TRUNCATED")
    if at < size:
        raise _bad(f"the file has {size - at:,} bytes after its last tensor", where, "E_OFFSETS")
    return ordered


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 59  # not bool, not 1.0


def _bad(what: str, where: str, code: str = "E_HEADER") -> UserError:
    return UserError(code, f"{what}.", where=where, do=AGAIN)
