"""`python app.py` on a free port and the Chromium that opens it: for the browser tests and benchmarks/page.py."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def running_app(home: Path, *, without: Collection[str] = (), **environment: str) -> Iterator[str]:
    """The address of the app, started as a user starts it; its log is server.log in `home`, its data folder.

    without: names that its environment lacks.
    """
    theirs = {key: value for key, value in os.environ.items() if key not in without}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, stdout=log, stderr=log,
            env={**theirs, "PORT": str(port), "MERGESCOPE_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
                 **environment},
        )  # fmt: skip
        try:
            yield _answering(f"http://127.0.0.1:{port}/", process, home / "server.log")
        finally:
            process.terminate()
            process.wait(60)


def _answering(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(2400):
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            urllib.request.urlopen(address, timeout=30).close()
            return address
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{address} does not answer: {log.read_text()}")
