"""Writes merged tensors as a model's folder: sharded, whole or not at all, resumable. Knows nothing of merging.

The bytes of the weights depend on the plan alone, not on what was resumed.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from merging.card import Scores, card
from merging.companions import companions, tokenizer_model
from merging.errors import UserError
from merging.events import Event, Finished, Notice, Reloaded, ShardWritten, Started, TensorDone
from merging.manifest import facts_of
from merging.partial import Partial, discard, open_partial, refuse_existing
from merging.plan import Plan
from merging.shards import Shard, index_of, is_finished, size_of, split, write_shard
from merging.stage import leaves

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Tensors = Callable[[Collection[str]], Iterator[tuple[str, Tensor]]]
Accept = Callable[[Path], Iterator[Event]]


def write(plan: Plan, out: Path, tensors: Tensors, *, resume: bool = False, max_shard_bytes: int = 1 << 30,
          accept: Accept | None = None, scores: Scores | None = None) -> Iterator[Event]:  # fmt: skip
    """Write `tensors(skip)`, which gives the plan's tensors in order without the skipped ones, to the folder `out`.

    `accept` tests the finished folder before it gets its name. A UserError of it leaves nothing at `out`; the finished
    weights stay beside it, and `resume` goes on from there. `scores` of this merge go into its model card.
    """
    begun = time.monotonic()
    out = Path(os.path.abspath(out))
    refuse_place(plan, out)
    beside = companions(plan)
    shards = split(plan.tensors, max_shard_bytes)
    with explained(out), open_partial(out, facts_of(plan), resume) as partial:
        done = [shard for shard in shards if is_finished(partial, shard)] if resume else []
        refuse_full_disk(partial, plan.estimate.disk_bytes - sum(shard.n_bytes for shard in done), bool(done))
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
        for name, data in (beside.files | index_of(shards)).items():
            partial.save(name, data)
        tested = (yield from _accepted(accept, partial, out)) if accept else None
        partial.save("README.md", card(plan, out.name, tested, scores).encode())
        partial.seal()
        partial.publish(out)
    yield Finished(str(out), plan.digest, len(plan.tensors), time.monotonic() - begun)


def _write_shards(
    plan: Plan, partial: Partial, shards: list[Shard], done: list[Shard], tensors: Tensors
) -> Iterator[Event]:
    kept = {tensor.name for shard in done for tensor in shard.tensors}
    n_done, bytes_left = len(kept), sum(size_of(t) for t in plan.tensors if t.name not in kept)
    all_bytes, begun = bytes_left, time.monotonic()
    stream = tensors(kept)
    for shard in shards:
        if shard in done:
            continue
        for written in write_shard(partial, shard, stream):
            n_done, bytes_left = n_done + 1, bytes_left - size_of(written)
            yield TensorDone(written.name, n_done, len(plan.tensors), seconds_left(begun, all_bytes, bytes_left))
        yield ShardWritten(shard.file, (partial.folder / shard.file).stat().st_size)


def _accepted(accept: Accept, partial: Partial, out: Path) -> Generator[Event, None, Reloaded | None]:
    found = None
    try:
        for event in accept(partial.folder):
            found = event if isinstance(event, Reloaded) else found
            yield event
    except UserError as error:
        kept = f"Nothing is at {out.name}; the finished weights are kept in {partial.folder.name}."
        again = "--resume tests them again; `python -m merging merge` with --resume takes them untested."
        do = f"{error.do} {again}"
        raise UserError(error.code, error.what, where=error.where, kept=kept, do=do, fix=error.fix) from error
    return found


def refuse_place(plan: Plan, out: Path) -> None:
    """Whatever is there stays, and no model that is merged lies there, around it or in it."""
    real = out.parent.resolve() / out.name
    models = leaves(*plan.models, tokenizer_model(plan))
    for name, source in ((model.source, folder.resolve()) for model in models for folder in model.folders):
        if real.resolve() == source or source in real.parents or real in source.parents:
            raise UserError("E_OUT_IS_SOURCE", f"the output folder must lie apart from the model {name}.",
                            where=str(out), kept="Nothing was written.",
                            do="Choose another output folder.")  # fmt: skip
    refuse_existing(out)


def refuse_full_disk(partial: Partial, n_bytes: int, keep: bool = False) -> None:
    """`keep`: finished shards are there, which a refusal leaves alone."""
    needed = n_bytes * 21 // 20
    free = shutil.disk_usage(partial.folder).free
    if free < needed:
        if not keep:
            discard(partial.folder)
        raise UserError("E_DISK_FULL", f"the merge needs {_mb(needed)}, and {_mb(free)} are free there.",
                        where=str(partial.folder.parent), kept="Nothing was written.",
                        do=f"Free {_mb(needed - free)}, or choose another disk.")  # fmt: skip


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """What goes wrong with the disk, in one sentence."""
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


def seconds_left(begun: float, total: int, left: int) -> float | None:
    return (time.monotonic() - begun) * left / (total - left) if total > left else None


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
