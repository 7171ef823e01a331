"""Writes merged tensors as a model's folder: sharded, whole or not at all, resumable. Knows nothing of merging.

Shapes are known beforehand, so each shard's header comes first and every tensor goes straight to its place in the file:
memory does not grow with the shard. The bytes depend on the plan alone, not on what was resumed.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.checkpoint import DTYPES, is_finite
from merging.companions import companions, tokenizer_model, without_paths
from merging.errors import Fix, UserError
from merging.events import Event, Finished, Notice, ShardWritten, Started, TensorDone
from merging.partial import Partial, discard, open_partial, refuse_existing, sync
from merging.plan import Plan, TensorPlan
from merging.safetensors_header import read_header
from merging.weight_files import INDEX, SINGLE

NAMES = {dtype: name for name, dtype in DTYPES.items()}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Shard:
    file: str
    tensors: tuple[TensorPlan, ...]

    @property
    def n_bytes(self) -> int:
        return sum(map(size_of, self.tensors))


def write(plan: Plan, out: Path, tensors: Callable[[Collection[str]], Iterator[tuple[str, Tensor]]], *,
          resume: bool = False, max_shard_bytes: int = 1 << 30) -> Iterator[Event]:  # fmt: skip
    """Write `tensors(skip)`, which gives the plan's tensors in order without the skipped ones, to the folder `out`."""
    begun = time.monotonic()
    out = Path(os.path.abspath(out))
    _refuse_sources(plan, out)
    refuse_existing(out)
    beside = companions(plan, out.name)
    shards = split(plan.tensors, max_shard_bytes)
    with _explained(out), open_partial(out, _facts(plan), resume) as partial:
        done = [shard for shard in shards if _is_finished(partial, shard)] if resume else []
        _refuse_full_disk(plan, partial, done)
        yield Started(len(plan.tensors), sum(shard.n_bytes for shard in shards))
        for text in (*plan.notices, *beside.notices):
            yield Notice(text)
        if done:
            yield Notice(f"{len(done)} of {len(shards)} shards were finished before and are kept.")
        try:
            yield from _write_shards(plan, partial, shards, done, tensors)
        except UserError:
            discard(partial.folder)  # a second try would end the same way
            raise
        for name, data in (beside.files | _index(shards)).items():
            partial.save(name, data)
        partial.publish(out)
    yield Finished(str(out), plan.digest, len(plan.tensors), time.monotonic() - begun)


def split(tensors: tuple[TensorPlan, ...], limit: int) -> list[Shard]:
    """Fill shards in plan order; a tensor larger than the limit has one to itself."""
    parts: list[list[TensorPlan]] = []
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


def size_of(tensor: TensorPlan) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def _write_shards(plan: Plan, partial: Partial, shards: list[Shard], done: list[Shard],
                  tensors: Callable[[Collection[str]], Iterator[tuple[str, Tensor]]]) -> Iterator[Event]:  # fmt: skip
    kept = {tensor.name for shard in done for tensor in shard.tensors}
    n_done, bytes_left = len(kept), sum(size_of(t) for t in plan.tensors if t.name not in kept)
    all_bytes, begun = bytes_left, time.monotonic()
    stream = tensors(kept)
    for shard in shards:
        if shard in done:
            continue
        header, places = _layout(shard)
        path = partial.folder / shard.file
        with path.open("wb") as file:
            file.write(header)
            for planned in shard.tensors:
                name, tensor = next(stream)
                _check(planned, name, tensor)
                file.seek(places[name])
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
                n_done, bytes_left = n_done + 1, bytes_left - size_of(planned)
                yield TensorDone(name, n_done, len(plan.tensors), _seconds_left(begun, all_bytes, bytes_left))
            file.flush()
            sync(file.fileno())
        read_header(path, shard.file)
        partial.note(shard.file, {"tensors": [t.name for t in shard.tensors], "bytes": path.stat().st_size,
                                  "sha256": _sha256(path)})  # fmt: skip
        yield ShardWritten(shard.file, path.stat().st_size)


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


def _index(shards: list[Shard]) -> dict[str, bytes]:
    if len(shards) == 1:
        return {}
    weight_map = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    index = {"metadata": {"total_size": sum(shard.n_bytes for shard in shards)}, "weight_map": weight_map}
    return {INDEX: (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()}


def _check(planned: TensorPlan, name: str, tensor: Tensor) -> None:
    if (name, tensor.shape, tensor.dtype) != (planned.name, planned.shape, planned.dtype):
        raise ValueError(f"{name} {tensor.dtype} {tuple(tensor.shape)} came where the plan has {planned.name}")
    if not is_finite(tensor):
        n_bad = int((~torch.isfinite(tensor)).sum())
        what = f"{n_bad:,} of {tensor.numel():,} merged weights are too large for {NAMES[planned.dtype]}."
        wider = ", or write `dtype: bfloat16`" if planned.dtype == torch.float16 else ""
        fix = Fix("Write bfloat16", "set", ("out_dtype",), "bfloat16") if wider else None
        raise UserError("E_NOT_FINITE", what, where=name, kept="Nothing was written.",
                        do=f"Lower the weights{wider}.", fix=fix)  # fmt: skip


def _facts(plan: Plan) -> dict[str, Any]:
    """What an export is of; the journal starts with it, and only the same export may be resumed."""
    recipe = without_paths(plan.recipe)
    return {"made_by": "Mergescope", "digest": plan.digest, "method": f"{plan.method.id} {plan.method.version}",
            "base": recipe.base, "models": [expert.model for expert in recipe.experts],
            "fingerprints": [model.fingerprint for model in (plan.base, *plan.experts)]}  # fmt: skip


def _is_finished(partial: Partial, shard: Shard) -> bool:
    facts, path = partial.journal["shards"].get(shard.file), partial.folder / shard.file
    names = [tensor.name for tensor in shard.tensors]
    return bool(facts) and facts["tensors"] == names and path.is_file() and _sha256(path) == facts["sha256"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_sources(plan: Plan, out: Path) -> None:
    real = out.parent.resolve() / out.name
    for model in (plan.base, *plan.experts, tokenizer_model(plan)):
        source = model.folder.resolve()
        if real.resolve() == source or source in real.parents or real in source.parents:
            raise UserError("E_OUT_IS_SOURCE", f"the output folder must lie apart from the model {model.source}.",
                            where=str(out), kept="Nothing was written.",
                            do="Choose another output folder.")  # fmt: skip


def _refuse_full_disk(plan: Plan, partial: Partial, done: list[Shard]) -> None:
    needed = plan.estimate.disk_bytes * 21 // 20 - sum(shard.n_bytes for shard in done)
    free = shutil.disk_usage(partial.folder).free
    if free < needed:
        if not done:
            discard(partial.folder)
        raise UserError("E_DISK_FULL", f"the merge needs {_mb(needed)}, and {_mb(free)} are free there.",
                        where=str(partial.folder.parent), kept="Nothing was written.",
                        do=f"Free {_mb(needed - free)}, or choose another disk.")  # fmt: skip


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        unfinished = out.with_name(f".{out.name}.partial")
        raise UserError(
            "E_DISK_FULL" if full else "E_WRITE",
            "the disk is full." if full else f"cannot be written: {error.strerror or error}.",
            where=str(out),
            kept="Nothing is there."
            + (f" Finished shards are kept in {unfinished.name}." if os.path.isdir(unfinished) else ""),
            do="Free some space and run the same command with --resume." if full else "",
        ) from error


def _seconds_left(begun: float, total: int, left: int) -> float | None:
    return (time.monotonic() - begun) * left / (total - left) if total > left else None


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
