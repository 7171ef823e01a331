"""Fixtures for all tests: a pico family on disk, and no way out to the network."""

import gc
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub
from tests.pico import make_family

os.environ |= {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays on one of xdist's workers, with what it makes once. So do the small files of browser tests together,
    with one app; the large one has its own.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            small = file.startswith("tests/browser/") and file != "tests/browser/test_page.py"
            return "browser" if small else file

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()  # torch and transformers stay: a collection, of which exports and models ask many, looks at the rest


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


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    """A Hub on loopback, an empty cache of this test's own, nobody logged in; the library is online for this test."""
    home = tmp_path / "hf"
    for name, value in {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HOME": str(home),
                        "HF_HUB_CACHE": str(home / "hub"), "HF_TOKEN_PATH": str(home / "token")}.items():  # fmt: skip
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    hub = FakeHub()
    with hub.serving() as url:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        yield hub
