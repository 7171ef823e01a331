"""Answers on disk: one file of answers for each model, probe set and way of decoding, so that nothing is asked twice.

Finished batches are appended as they come; a killed run goes on after the last of them.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from merging.checkpoint import Checkpoint
from merging.companions import companions, voice
from merging.errors import UserError
from merging.model_files import TEMPLATE, TOKENIZER
from merging.plan import Plan

_TEXTS = ("config.json", "generation_config.json", TEMPLATE, *TOKENIZER)


def data_folder() -> Path:
    return Path(os.environ.get("MERGESCOPE_HOME") or Path.home() / ".cache" / "mergescope").expanduser()


def identity(model: Checkpoint | Plan) -> str:
    """sha256 of what decides a model's answers: its weights, its config, its tokenizer and its chat template."""
    if isinstance(model, Plan):
        weights, files = model.digest, companions(model).files
    else:
        home, texts = model.folders[-1], voice(model)
        paths = [(home if name in _TEXTS[:2] else texts) / name for name in _TEXTS]
        weights, files = model.fingerprint, {path.name: path.read_bytes() for path in paths if path.is_file()}
    digest = hashlib.sha256(weights.encode())
    for name in _TEXTS:
        if name in files:
            digest.update(f"\0{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()


def finished(key: str) -> dict[str, Any] | None:
    """The document of a finished run; None where there is none, or none that can be read."""
    try:
        found = json.loads((data_folder() / "scores" / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class Answers:
    """Answers by probe id. `add` keeps a batch for good; `finish` turns the log into the final file."""

    def __init__(self, key: str) -> None:
        folder = data_folder() / "scores"
        with _plain_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._log, self._final = folder / f"{key}.jsonl", folder / f"{key}.json"
        self.texts: dict[str, str] = self._read()

    def add(self, texts: Mapping[str, str]) -> None:
        self.texts |= texts
        lines = "".join(json.dumps([id, text]) + "\n" for id, text in texts.items())
        with _plain_errors(self._log), self._log.open("ab", buffering=0) as log:  # one write: two runs do not mix
            log.write(lines.encode())

    def finish(self, document: Mapping[str, object]) -> None:
        """`document` must hold the answers: [{"id", "text", ...}]; the rest is for people."""
        if self._final.exists():
            return
        part = self._final.with_suffix(f".{os.getpid()}.part")
        with _plain_errors(part):
            part.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
            part.replace(self._final)
        self._log.unlink(missing_ok=True)

    def _read(self) -> dict[str, str]:
        if self._final.exists():
            return {answer["id"]: answer["text"] for answer in json.loads(self._final.read_bytes())["answers"]}
        if not self._log.exists():
            return {}
        *whole, torn = self._log.read_bytes().split(b"\n")
        if torn:  # the run was killed inside a line
            os.truncate(self._log, self._log.stat().st_size - len(torn))
        found = {}
        for line in whole:
            with suppress(ValueError):  # a line of a run that met a full disk; its probe is asked again
                id, text = json.loads(line)
                found[id] = text
        return found


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            "E_DATA_FOLDER",
            f"answers cannot be kept here: {error.strerror}.",
            where=str(path),
            do="Make room, or set MERGESCOPE_HOME to a folder that can be written.",
        ) from error
