"""Fixtures for all tests: a pico family on disk, and no way out to the network."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.pico import make_family

os.environ |= {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Connections leave this machine only by mistake, and then the test says so."""
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test wanted to reach {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def pico_family(tmp_path_factory) -> dict[str, Path]:
    """Folders of base, helpful, honest, harmless (bfloat16, with tokenizer). Shared: read only."""
    return make_family(tmp_path_factory.mktemp("pico"), tokenizer=True)


@pytest.fixture
def family(pico_family, tmp_path) -> Path:
    """A folder with a copy of the family of this test's own, to be damaged at will."""
    for name, folder in pico_family.items():
        shutil.copytree(folder, tmp_path / name)
    return tmp_path
