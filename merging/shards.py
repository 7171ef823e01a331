"""Safetensors files of tensors known beforehand: what goes into one shard, and writing it as the tensors come.

Shapes are known, so each shard's header comes first and every tensor goes straight to its place in the file: memory
does not grow with the shard.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import torch
from torch import Tensor

from merging.checkpoint import NAMES, is_finite
from merging.errors import Fix, UserError
from merging.model_files import INDEX, SINGLE
from merging.partial import Partial, sha256_of, sync
from merging.safetensors_header import read_header
from merging.strict_json import json_bytes


class Stored(Protocol):
    """A tensor as a file's header names it."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...


@dataclass(frozen=True)
class Shard:
    file: str
    tensors: tuple[Stored, ...]

    @property
    def n_bytes(self) -> int:
        return sum(map(size_of, self.tensors))


def size_of(tensor: Stored) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def split(tensors: Sequence[Stored], limit: int) -> list[Shard]:
    """Fill shards in plan order; a tensor larger than the limit has one to itself."""
    parts: list[list[Stored]] = []
    room = 0
    for tensor in tensors:
        if not parts or size_of(tensor) > room:
            parts.append([])
            room = limit
        parts[-1].append(tensor)
        room -= size_of(tensor)
    if len(parts) == 1:
        return [Shard(SINGLE, tuple(parts[0]))]
    return [Shard(f"model-{i:05}-of-{len(parts):05}.safetensors", tuple(part)) for i, part in enumerate(parts, 1)]


def write_shard(partial: Partial, shard: Shard, stream: Iterator[tuple[str, Tensor]]) -> Iterator[Stored]:
    """Write the shard's tensors, which come next in `stream`, each whole or in rows of its entries, and note it in the
    journal; yields each one written.
    """
    header, places = _layout(shard)
    path = partial.folder / shard.file
    with path.open("wb") as file:
        file.write(header)
        digest, in_order = sha256(header), True
        for planned in shard.tensors:
            in_order = in_order and file.tell() == places[planned.name]
            file.seek(places[planned.name])
            for piece in _pieces(planned, stream):
                data = piece.contiguous().reshape(-1).view(torch.uint8).numpy().data
                file.write(data)
                if in_order:
                    digest.update(data)
            yield planned
        file.flush()
        sync(file.fileno())
    read_header(path, shard.file)
    partial.note(shard.file, {"tensors": [t.name for t in shard.tensors], "bytes": path.stat().st_size,
                              "sha256": digest.hexdigest() if in_order else sha256_of(path)})  # fmt: skip


def is_finished(partial: Partial, shard: Shard) -> bool:
    facts, path = partial.journal["shards"].get(shard.file), partial.folder / shard.file
    names = [tensor.name for tensor in shard.tensors]
    return bool(facts) and facts["tensors"] == names and path.is_file() and sha256_of(path) == facts["sha256"]


def index_of(shards: list[Shard]) -> dict[str, bytes]:
    """The index file of several shards; one shard needs none."""
    if len(shards) == 1:
        return {}
    weight_map = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    index = {"metadata": {"total_size": sum(shard.n_bytes for shard in shards)}, "weight_map": weight_map}
    return {INDEX: json_bytes(index)}


def _layout(shard: Shard) -> tuple[bytes, dict[str, int]]:
    """Header bytes, and where in the file each tensor starts. Wide items come first, so that every one is aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in sorted(shard.tensors, key=lambda t: -t.dtype.itemsize):
        end = at + size_of(tensor)
        header[tensor.name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    del header["__metadata__"]
    starts = {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items()}
    return len(text).to_bytes(8, "little") + text, starts


def _pieces(planned: Stored, stream: Iterator[tuple[str, Tensor]]) -> Iterator[Tensor]:
    """A tensor, or what comes of it one after the other; checked."""
    n, seen = math.prod(planned.shape), 0
    while True:
        name, piece = next(stream)
        seen += piece.numel()
        if (name, piece.dtype) != (planned.name, planned.dtype) or seen > n:
            raise ValueError(f"{name} {piece.dtype} {tuple(piece.shape)} came where the plan has {planned.name}")
        _refuse_infinite(planned, piece, f"{'the first ' if seen < n else ''}{seen:,}")
        yield piece
        if seen == n:
            return


def _refuse_infinite(planned: Stored, piece: Tensor, seen: str) -> None:
    if not is_finite(piece):
        n_bad = int((~torch.isfinite(piece)).sum())
        what = f"{n_bad:,} of {seen} merged weights are too large for {NAMES[planned.dtype]}."
        wider = ", or write `dtype: bfloat16`" if planned.dtype == torch.float16 else ""
        fix = Fix("Write bfloat16", "set", ("out_dtype",), "bfloat16") if wider else None
        raise UserError("E_NOT_FINITE", what, where=planned.name, kept="Nothing was written.",
                        do=f"Lower the weights{wider}.", fix=fix)  # fmt: skip
