"""The hidden folder beside OUT in which an export grows, becoming OUT in one rename. Knows nothing of tensors.

A lock tells a running export from the remains of a killed one; the journal says which shards are finished.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.errors import UserError
from merging.strict_json import read_json

JOURNAL, LOCK = "mergescope.json", ".lock"
JOURNAL_LIMIT = 64 << 20


@dataclass(frozen=True)
class Partial:
    folder: Path
    journal: dict[str, Any]  # stays in OUT as its manifest

    def save(self, name: str, data: bytes) -> None:
        """Write a small file whole or not at all."""
        (self.folder / name).parent.mkdir(exist_ok=True)
        temporary = self.folder / f"{name}.new"
        with temporary.open("wb") as file:
            file.write(data)
            sync(file.fileno())
        temporary.replace(self.folder / name)

    def note(self, shard: str, facts: dict[str, Any]) -> None:
        self.journal["shards"][shard] = facts
        self.save_journal()

    def seal(self) -> None:
        """Note the size and sha256 of every file beside the shards: the journal becomes OUT's manifest."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        self.journal["files"] = {
            name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for name, path in zip(names, paths, strict=True)
            if name not in self.journal["shards"] and name not in (JOURNAL, LOCK)
        }
        self.save_journal()

    def save_journal(self) -> None:
        self.save(JOURNAL, (json.dumps(self.journal, indent=1) + "\n").encode())
        sync_folder(self.folder)

    def publish(self, out: Path) -> None:
        sync_folder(self.folder)
        refuse_existing(out)
        self.folder.rename(out)
        with suppress(OSError):  # OUT is whole by now, whatever happens
            (out / LOCK).unlink()  # after the rename: whoever waits for this lock must not find a new one
            sync_folder(out.parent)


@contextmanager
def open_partial(out: Path, facts: dict[str, Any], resume: bool) -> Iterator[Partial]:
    """Lock and prepare the folder; with `resume`, the journal of an export of the same facts is taken over."""
    folder = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    try:
        refuse_existing(out)
        old = _old_journal(folder)
        same = resume and {key: value for key, value in old.items() if key not in ("shards", "files")} == facts
        partial = Partial(folder, old if same else {**facts, "shards": {}})
        if not same:
            _empty(folder)
            partial.save_journal()
        yield partial
    finally:
        os.close(lock)


def discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise UserError("E_OUT_EXISTS", "this exists already.", where=str(out), kept="It was not touched.",
                        do="Choose another name, or move this away.")  # fmt: skip


def refuse_file(out: Path) -> None:
    """Fail early where a new file could not be written, or would take the place of something."""
    refuse_existing(out)
    if not out.parent.is_dir():
        raise UserError("E_WRITE", "there is no such folder.", where=str(out.parent), do="Make it first.")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    while True:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise _foreign(folder)
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK)):
                return descriptor
        except FileNotFoundError:
            pass  # the export that held it finished just now
        except BlockingIOError:
            os.close(descriptor)
            raise UserError("E_BUSY", "another merge is writing there.", where=str(folder), kept="It goes on.",
                            do="Wait for it, or choose another output folder.") from None  # fmt: skip
        os.close(descriptor)


def _old_journal(folder: Path) -> dict[str, Any]:
    """The journal of an earlier export; {} in a new folder. Refuses a folder that no export made."""
    names = {path.name for path in folder.iterdir()} - {LOCK, f"{JOURNAL}.new"}
    if not names:
        return {}
    try:
        journal = read_json(folder / JOURNAL, JOURNAL_LIMIT)
    except (ValueError, FileNotFoundError):
        journal = None
    if isinstance(journal, dict) and isinstance(journal.get("shards"), dict) and journal.get("made_by") == "Mergescope":
        return journal
    raise _foreign(folder)


def _foreign(folder: Path) -> UserError:
    return UserError("E_OUT_EXISTS", "this is needed for the unfinished merge, but something else is there.",
                     where=str(folder), kept="It was not touched.", do="Move it away.")  # fmt: skip


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
