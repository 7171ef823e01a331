"""One command's cost: CPU seconds of its process tree on one core, and the peak of its anonymous memory."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Cost:
    cpu: float  # seconds, user and system
    anonymous: int  # bytes at the peak; mapped pages of files, which the kernel can drop, are not in it


def run(command: Sequence[str], *, cwd: Path) -> Cost:
    """Run to the end on one core; raises CalledProcessError with its output when it fails."""
    before = _children()
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1"}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=_one_core,
    )  # fmt: skip
    peak = 0
    while process.poll() is None:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(0.01)
    error = process.stderr.read() if process.stderr else ""
    if process.returncode:
        print(error[-2000:], file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(_children() - before, peak)


def _one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended
        return 0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon")), "RssAnon: 0 kB")
    return int(line.split()[1]) << 10
