"""Runs one command on one core and measures it: CPU seconds of its data part, and the peak of its anonymous memory.

The command is one of `runners/`: it says `{"start": CPU, "anonymous": BYTES}` once its imports are done, and at the end
one object with what it measured itself.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Cost:
    start: float  # CPU seconds until the imports are done
    cpu: float  # CPU seconds after that, user and system
    anonymous: int  # peak bytes above those after the imports; mapped pages of files are not in it
    said: dict[str, Any]  # the last line


def run(command: Sequence[str], cwd: Path) -> Cost:
    """Raises CalledProcessError, with the command's own words on stderr, when it fails."""
    peak = 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(cwd)},
            stdout=out, stderr=err, preexec_fn=_one_core,
        )  # fmt: skip
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.01)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            print(err.read()[-2000:], file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
        first, *_, last = [json.loads(line) for line in out if line.startswith("{")]
    return Cost(first["start"], last["cpu"], max(0, peak - first["anonymous"]), last)


def anonymous(pid: int | str = "self") -> int:
    """Anonymous bytes of a process that are in memory; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon")), "RssAnon: 0 kB")
    return int(line.split()[1]) << 10


def _one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
