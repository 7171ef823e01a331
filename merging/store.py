"""Results kept on disk between starts: safetensors files by key, written whole or not at all, the least used dropped.

A cache may always be deleted. A file that is damaged counts as missing, and a folder that cannot be written is done
without.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


class Store:
    """Tensors by key in one folder; `trim` keeps the latest used files within a number of bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors, mapped from the file, so that they take no memory of their own; None where there are none."""
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return found

    def has(self, key: str) -> bool:
        return self._path(key).exists()

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        with suppress(OSError):  # a full disk or a folder without leave to write: the next start computes anew
            self.folder.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.folder, prefix=".", suffix=".new", delete=False) as file:
                try:
                    file.write(data)
                    file.close()
                    Path(file.name).replace(self._path(key))
                except OSError:
                    Path(file.name).unlink(missing_ok=True)
                    raise

    def trim(self, n_bytes: int) -> None:
        """Delete what was not used for longest until the files take `n_bytes` at most."""
        with suppress(OSError):
            paths = (*self.folder.glob("*.safetensors"), *self.folder.glob(".*.new"))  # also what a killed process left
            files = [(path, path.stat()) for path in paths]
            total = sum(stat.st_size for _, stat in files)
            for path, stat in sorted(files, key=lambda item: item[1].st_mtime_ns):
                if total <= n_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= stat.st_size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def key_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]
