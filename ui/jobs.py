"""The one seam for heavy work: a warm worker process for sliders and chat, subprocesses for long jobs.

Knows nothing of Gradio or of what is computed: requests and replies pass through, our own command line does the work.
"""

import json
import multiprocessing
import os
import queue
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from merging.errors import UserError

_ROOT = Path(__file__).resolve().parent.parent
_GRACE = 5.0  # seconds between asking a job to end and ending it
_PACE = 0.2  # seconds between two looks into a job's log


def _serve(connection: Connection) -> None:
    from eval.worker import serve  # in the child only: it loads torch and transformers

    serve(connection)


class Stream:
    """The replies to one request, in order. A UserError among them is raised; `cancel` makes it end early. A later
    request has a higher number."""

    def __init__(self, number: int, cancel: Callable[[], object]) -> None:
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.number, self.cancel = number, cancel

    def put(self, reply: Any) -> None:
        self._replies.put(reply)

    def __iter__(self) -> Iterator[Any]:
        while (reply := self._replies.get()) is not None:
            if isinstance(reply, UserError):
                raise reply
            yield reply


class LiveWorker:
    """One spawned process that answers many requests at a time; a dead one is replaced at the next request."""

    def __init__(self, serve: Callable[[Connection], None] = _serve) -> None:
        self._target = serve
        self._lock = threading.RLock()
        self._ids = count(1)
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._streams: dict[int, tuple[Connection, Stream]] = {}

    def ask(self, request: Any) -> Stream:
        with self._lock:
            connection = self._running()
            number = next(self._ids)
            stream = Stream(number, lambda: self._send(connection, number, "cancel"))
            self._streams[number] = (connection, stream)
            if not self._send(connection, number, request):  # in the order of their numbers
                self._lost(connection)
        return stream

    def warm(self) -> None:
        """Start the process now, so that the first request does not wait for its imports."""
        with self._lock:
            self._running()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def close(self) -> None:
        if self._process:
            self._process.terminate()

    def _running(self) -> Connection:
        if self._connection is None or self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            process = context.Process(target=self._target, args=(theirs,), name="mergescope-live", daemon=True)
            process.start()
            self._process = process
            theirs.close()  # or the end of the process would never show as the end of the pipe
            threading.Thread(target=self._read, args=(self._connection,), daemon=True).start()
        return self._connection

    def _send(self, connection: Connection, number: int, request: Any) -> bool:
        with self._lock:
            if connection is not self._connection:  # a cancel for a process that is gone
                return False
            try:
                connection.send((number, request))
            except (BrokenPipeError, OSError):
                return False
            return True

    def _read(self, connection: Connection) -> None:
        while True:
            try:
                number, reply = connection.recv()
            except (EOFError, OSError):
                return self._lost(connection)
            with self._lock:
                entry = self._streams.get(number)
                if reply is None or isinstance(reply, UserError):
                    self._streams.pop(number, None)
            if entry:
                entry[1].put(reply)

    def _lost(self, connection: Connection) -> None:
        with self._lock:
            if connection is self._connection:
                self._connection = None
            lost = [number for number, (through, _) in self._streams.items() if through is connection]
            streams = [self._streams.pop(number)[1] for number in lost]
        for stream in streams:
            stream.put(
                UserError(
                    "E_WORKER",
                    "The process that computes pictures and answers ended unexpectedly, perhaps for lack of memory.",
                    kept="Your settings are kept.",
                    do="It starts again with your next move or question.",
                )
            )


@dataclass(frozen=True)
class Job:
    """One long job: a few of our own command lines, run one after the other into one log."""

    id: str
    owner: str
    kind: str  # "score", "save" or "download"
    about: str  # what it belongs to, such as the digest of the merge that is scored
    commands: tuple[tuple[str, ...], ...]


class Jobs:
    """Runs `python -m ...` with --json; what it prints is the log, which is all that a reload needs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopped: set[str] = set()

    def folder(self, job_id: str) -> Path:
        return self.root / job_id

    def new_id(self) -> str:
        """Fresh, with its folder, so that a recipe can be put there before the job starts."""
        job_id = secrets.token_hex(16)
        self.folder(job_id).mkdir(parents=True)
        return job_id

    def start(
        self, job_id: str, owner: str, kind: str, about: str, commands: Sequence[Sequence[str]],
        token: str | None = None,
    ) -> Job:  # fmt: skip
        """`token`: the Hub token of whoever asked, for this job's processes alone; None leaves the machine's own."""
        job = Job(job_id, owner, kind, about, tuple(tuple(command) for command in commands))
        (self.folder(job.id) / "job.json").write_text(json.dumps(asdict(job)))
        (self.folder(job.id) / "log.jsonl").touch()
        thread = threading.Thread(target=self._run, args=(job, token), daemon=True)
        self._threads[job.id] = thread
        thread.start()
        return job

    def find(self, job_id: str, owner: str) -> Job | None:
        """The job of that id, for its owner only."""
        if not re.fullmatch(r"[0-9a-f]{32}", job_id):
            return None
        path = self.folder(job_id) / "job.json"
        if not path.is_file():
            return None
        raw = json.loads(path.read_text())
        job = Job(**{**raw, "commands": tuple(tuple(command) for command in raw["commands"])})
        return job if secrets.compare_digest(job.owner, owner) else None

    def stop(self, job: Job) -> None:
        self._stopped.add(job.id)
        process = self._running.get(job.id)
        if process and process.poll() is None:
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()

    def stopped(self, job: Job) -> bool:
        return job.id in self._stopped

    def is_running(self, job: Job) -> bool:
        thread = self._threads.get(job.id)
        return thread is not None and thread.is_alive()

    def follow(self, job: Job) -> Iterator[dict[str, Any]]:
        """Every object of the log from its start, then the new ones until the job has ended; its failure is raised."""
        return chain.from_iterable(self.batches(job))

    def batches(self, job: Job) -> Iterator[list[dict[str, Any]]]:
        """The same, all that have come since the last look at a time: a job can write more than a page can show."""
        with (self.folder(job.id) / "log.jsonl").open(encoding="utf-8") as log:
            rest = ""
            while True:
                ended = not self.is_running(job)
                rest += log.read()
                *lines, rest = rest.split("\n")
                events = list(map(json.loads, lines))
                failed = next((event for event in events if event.get("event") == "error"), None)
                if failed:
                    events = events[: events.index(failed)]
                if events:
                    yield events
                if failed:
                    raise UserError(
                        failed["code"], failed["what"], where=failed["where"], kept=failed["kept"], do=failed["do"]
                    )
                if ended and not lines:
                    return
                if not ended:
                    time.sleep(_PACE)

    def _run(self, job: Job, token: str | None) -> None:
        folder = self.folder(job.id)
        with (folder / "log.jsonl").open("ab", buffering=0) as log:
            for command in job.commands:
                if job.id in self._stopped:
                    return
                errors = folder / "errors.txt"
                with errors.open("wb") as stderr:
                    process = subprocess.Popen(
                        [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=stderr, cwd=folder,
                        env=_environment(token),
                    )  # fmt: skip
                    self._running[job.id] = process
                    if job.id in self._stopped:  # asked between the check above and the start
                        process.terminate()
                    code = process.wait()
                self._running.pop(job.id, None)
                if job.id in self._stopped:
                    return
                if code not in (0, 2):  # 2: the command has said so itself
                    failed = UserError(
                        "E_JOB",
                        _ended(code),
                        kept="What was finished is kept.",
                        do="Its messages are in the data folder.",
                    )
                    log.write((json.dumps({"event": "error", **failed.to_dict()}) + "\n").encode())
                if code != 0:
                    return


def _environment(token: str | None) -> dict[str, str]:
    path = os.pathsep.join(part for part in (str(_ROOT), os.environ.get("PYTHONPATH", "")) if part)
    own = {} if token is None else {"HF_TOKEN": token}
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **own}


def _ended(code: int) -> str:
    if code < 0:
        return f"The job was ended by the system (signal {-code}), perhaps for lack of memory."
    return "The job ended unexpectedly."
