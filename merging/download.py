"""Files of a Hub model into the Hub library's cache: resumed, held against the Hub's own hashes, stopped at once.

The library's own download starts again from nothing after a stop (2.4), so the bytes are fetched here.
"""

import fcntl
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from merging.errors import UserError, all_of
from merging.events import Downloaded, Downloading, DownloadStarted, Event
from merging.hub import TIMEOUT, Hub, HubFile, Listing, explained, listing
from merging.hub_cache import downloads, keep_ref, link
from merging.model_files import ADAPTER, ADAPTER_CONFIG, INDEX, SINGLE, TEMPLATES, TEXTS
from merging.weight_files import SHARD, no_weights, weight_map

TEMPLATE_FILE = re.compile(rf"{TEMPLATES}/\w[\w.-]*\.jinja")
TRIES = 5  # in a row, without a byte between them
LONGEST_WAIT = 60.0  # seconds, when the Hub asks for a pause
CHUNK = 1 << 20
TICK = 0.2  # seconds between two looks at the thread


def download(source: str, *, hub: Hub = Hub()) -> Iterator[Event]:
    """Bring a Hub model (`id` or `id@revision`) to this machine.

    Closed or interrupted before its end it keeps what is there by then, and the next call goes on from it.
    """
    begun = time.monotonic()
    found = listing(source, hub)
    root = downloads(found.repo)
    texts, weights = plan_download(found, root, hub)
    files = [*texts, *weights]
    total = sum(file.size for file in files)
    before = done = sum(_there(root, file) for file in files)
    yield DownloadStarted(source, found.commit, len(files), total, before)
    _refuse_full_disk(root, total - before)
    for file in files:
        rest = done - _there(root, file)
        for n in fetch(found, file, root, hub):
            done = rest + n
            left = (time.monotonic() - begun) * (total - done) / (done - before) if done > before else None
            yield Downloading(source, file.name, done, total, left)
        done = rest + file.size
    keep_ref(root, found.revision, found.commit)
    folder = root / "snapshots" / found.commit
    yield Downloaded(source, found.commit, str(folder), total - before, time.monotonic() - begun)


def plan_download(found: Listing, root: Path, hub: Hub) -> tuple[list[HubFile], list[HubFile]]:
    """The texts and the weights that make up the model; nothing else of the repository is ever fetched.

    The index of a sharded model is fetched to learn its shards. Raises one UserError with every problem.
    """
    names = found.files.keys()
    texts = [name for name in (*TEXTS, INDEX) if name in names and (name != INDEX or SINGLE not in names)]
    texts += [name for name in names if TEMPLATE_FILE.fullmatch(name)]
    problems: list[UserError] = []
    if SINGLE in names:
        weights = [SINGLE]
    elif INDEX in names:
        for _ in fetch(found, found.files[INDEX], root, hub):
            pass
        where = f"{found.source}/{INDEX}"
        weights = sorted(set(weight_map(root / "snapshots" / found.commit, where, problems).values()))
        if wrong := [name for name in weights if name not in names or not SHARD.fullmatch(name)]:
            what = f"it names {len(wrong)} files that the model does not have."
            problems.append(UserError("E_INDEX", what, where=where, do="Use another revision."))
    elif {ADAPTER, ADAPTER_CONFIG} <= names:
        weights = [ADAPTER]
    else:
        raise no_weights(set(names), found.source)
    if problems:
        raise all_of(problems, kept="No weight was fetched.")
    return [found.files[name] for name in texts], [found.files[name] for name in weights]


def fetch(found: Listing, file: HubFile, root: Path, hub: Hub) -> Iterator[int]:
    """Fetch one file; yields its bytes here so far, several times a second. Nothing for one that is here already."""
    blob, part = _paths(root, file)
    if not _is_here(blob, file):
        blob.parent.mkdir(parents=True, exist_ok=True)
        with _own(part, found.source) as kept:
            transfer = _Transfer(found.url(hub, file.name), file, hub, kept)
            # a thread of its own: a server that falls silent cannot keep a stop waiting
            thread = threading.Thread(target=transfer.run, daemon=True)
            thread.start()
            try:
                while thread.is_alive():
                    thread.join(TICK)
                    yield transfer.n_bytes
            finally:
                transfer.halt()
            if transfer.error:
                _raise_explained(transfer.error, hub, found.source)
            _refuse_damaged(transfer, part, found, file)
            part.replace(blob)
    link(root, found.commit, file.name, file.blob)


@dataclass
class _Transfer:
    """One file on its way, appended to what an earlier try left."""

    url: str
    file: HubFile
    hub: Hub
    kept: BinaryIO
    n_bytes: int = 0
    error: Exception | None = None
    halted: threading.Event = field(default_factory=threading.Event)
    lock: Any = field(default_factory=threading.Lock)  # no byte is written once halt() has returned

    def __post_init__(self) -> None:
        self.digest = _new_digest(self.file)

    def run(self) -> None:
        import httpx2
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            self._hash_kept()
            self._receive_all()
        except (httpx2.HTTPError, OSError, OfflineModeIsEnabled, UserError) as error:
            self.error = None if self.halted.is_set() else error

    def halt(self) -> None:
        with self.lock:
            self.halted.set()

    def _hash_kept(self) -> None:
        while True:
            with self.lock:
                chunk = b"" if self.halted.is_set() else self.kept.read(CHUNK)
            if not chunk:
                return
            self._take(chunk)

    def _receive_all(self) -> None:
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        tries = 0
        while self.n_bytes < self.file.size and not self.halted.is_set():
            before, wait = self.n_bytes, 0.5 * 2**tries
            try:
                self._receive()
                if self.n_bytes == before:
                    raise httpx2.RemoteProtocolError("no byte came")
            except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, HfHubHTTPError) as error:
                tries = 1 if self.n_bytes > before else tries + 1
                asked = error.response if isinstance(error, HfHubHTTPError) else None
                if tries >= TRIES or (asked is not None and asked.status_code not in (408, 429, 500, 502, 503, 504)):
                    raise
                pause = asked.headers.get("Retry-After", "") if asked is not None else ""
                self.halted.wait(min(float(pause) if pause.isdigit() else wait, LONGEST_WAIT))

    def _receive(self) -> None:
        from huggingface_hub.utils import get_session, hf_raise_for_status

        headers = {**self.hub.headers, "Accept-Encoding": "identity"}
        if self.n_bytes:
            headers["Range"] = f"bytes={self.n_bytes}-"
        with get_session().stream("GET", self.url, headers=headers, timeout=TIMEOUT) as response:
            hf_raise_for_status(response)
            if self.n_bytes and response.status_code != 206:  # the server sends the file from its start
                self._begin_again()
            for chunk in response.iter_raw():  # as it comes: a cut must not lose what a full chunk waits for
                with self.lock:
                    if self.halted.is_set():
                        return
                    self.kept.write(chunk)
                self._take(chunk)
                if self.n_bytes > self.file.size:
                    return

    def _begin_again(self) -> None:
        with self.lock:
            if not self.halted.is_set():
                self.kept.seek(0)
                self.kept.truncate()
        self.n_bytes, self.digest = 0, _new_digest(self.file)

    def _take(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.n_bytes += len(chunk)


def _raise_explained(error: Exception, hub: Hub, source: str) -> None:
    try:
        with explained(hub, source):
            raise error
    except OSError as fault:
        raise UserError("E_WRITE", f"the download cannot be kept: {fault.strerror}.", where=source,
                        kept="What came before is kept.", do="Free some space and try again.") from None  # fmt: skip


def _new_digest(file: HubFile) -> Any:
    """sha256 of large files; of small ones git's sha1, which counts a line about the size."""
    return hashlib.sha256() if len(file.blob) == 64 else hashlib.sha1(f"blob {file.size}\0".encode())


def _own(part: Path, source: str) -> BinaryIO:
    """The unfinished file, locked: two downloads never write to one file."""
    kept = open(part, "r+b" if part.exists() else "w+b", buffering=0)  # noqa: SIM115
    try:
        fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        kept.close()
        raise UserError("E_BUSY", "this model is being downloaded already.", where=source, kept="That goes on.",
                        do="Wait for it.") from None  # fmt: skip
    return kept


def _refuse_damaged(transfer: _Transfer, part: Path, found: Listing, file: HubFile) -> None:
    got = transfer.digest.hexdigest()
    if transfer.n_bytes != file.size or got != file.blob:
        part.unlink()
        kind = "sha256" if len(file.blob) == 64 else "git hash"
        raise UserError("E_DAMAGED", f"what came is not what the Hub lists: {kind} {got[:16]}..., not "
                        f"{file.blob[:16]}....", where=f"{found.source}/{file.name}",
                        kept="The damaged file was removed; the others are kept.", do="Download it again.")  # fmt: skip


def _paths(root: Path, file: HubFile) -> tuple[Path, Path]:
    blob = root / "blobs" / file.blob
    return blob, blob.with_name(f"{blob.name}.incomplete")


def _is_here(blob: Path, file: HubFile) -> bool:
    return blob.is_file() and blob.stat().st_size == file.size


def _there(root: Path, file: HubFile) -> int:
    """The bytes of a file that are on this machine already."""
    blob, part = _paths(root, file)
    if _is_here(blob, file):
        return file.size
    return min(part.stat().st_size, file.size) if part.exists() else 0


def _refuse_full_disk(root: Path, n_bytes: int) -> None:
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if n_bytes > free:
        raise UserError("E_DISK_FULL", f"the download needs {n_bytes / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are "
                        "free.", where=str(place), kept="Nothing was fetched.", do="Free some space.")  # fmt: skip
