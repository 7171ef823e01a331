"""Where Hub models lie on this machine: whole ones in the Hub library's own cache, headers alone in ours.

Both are laid out as the Hub library does: `blobs/HASH`, `snapshots/COMMIT/NAME` linked to them, `refs/REVISION`.
Knows nothing of the network.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from merging.errors import UserError
from merging.model_files import ADAPTER, ADAPTER_CONFIG, INDEX, SINGLE
from merging.strict_json import read_json
from merging.words import shown

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
ABSENT = "absent.json"  # lies beside the headers of a model that is not downloaded
INDEX_LIMIT = 64 << 20


@dataclass(frozen=True)
class Absent:
    """What of a Hub model is not on this machine: its weights, of which only the headers are here."""

    n_bytes: int  # to download
    sizes: Mapping[str, int]  # of each file of weights
    hashes: tuple[str, ...]  # the Hub's own, of each file of weights


def split(source: str) -> tuple[str, str]:
    """`id@revision` as its two parts; the revision is `main` where there is none."""
    repo, _, revision = source.partition("@")
    if not HUB_ID.fullmatch(source) or {"", ".", ".."} & set((revision or "main").split("/")):
        raise UserError("E_MODEL_MISSING", "this is not the id of a Hub model.", where=shown(source, 200)[1:-1],
                        do="Write it as OWNER/NAME or OWNER/NAME@REVISION.")  # fmt: skip
    return repo, revision or "main"


def downloads(repo: str) -> Path:
    """The model's place in the Hub library's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def headers(repo: str) -> Path:
    """The model's place among those of which only headers are here."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "mergescope" / f"models--{repo.replace('/', '--')}"


def local_model(source: str) -> Path | None:
    """The folder of a Hub model on this machine: whole, else with the headers alone, else None."""
    repo, revision = split(source)
    commits = list(dict.fromkeys(_commits(repo, revision)))
    whole = (downloads(repo) / "snapshots" / commit for commit in commits)
    known = (headers(repo) / "snapshots" / commit for commit in commits)
    return next((folder for folder in whole if is_whole(folder)), None) or next(
        (folder for folder in known if (folder / ABSENT).is_file()), None
    )


def is_whole(folder: Path) -> bool:
    """Whether a snapshot holds a model's config and all its weights, whoever downloaded it."""
    there = {path.name for path in folder.iterdir() if path.exists()} if folder.is_dir() else set()
    if {ADAPTER_CONFIG, ADAPTER} <= there or {"config.json", SINGLE} <= there:
        return True
    if not {"config.json", INDEX} <= there:
        return False
    try:
        return set(read_json(folder / INDEX, INDEX_LIMIT)["weight_map"].values()) <= there
    except (ValueError, OSError, KeyError, TypeError, AttributeError):
        return True  # what is wrong with the index is told when the model is opened


def commit_of(folder: Path) -> str | None:
    """The commit of a snapshot's folder; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None


def absent(folder: Path) -> Absent | None:
    """What a folder with headers alone lacks; None for any other folder."""
    path = folder / ABSENT
    if not path.is_file():
        return None
    facts = read_json(path, INDEX_LIMIT)
    return Absent(facts["n_bytes"], facts["sizes"], tuple(facts["hashes"]))


def keep_absent(folder: Path, facts: Absent) -> None:
    """Written last: a folder of headers counts only once this is there."""
    temporary = folder / f"{ABSENT}.{os.getpid()}"
    temporary.write_text(json.dumps({"n_bytes": facts.n_bytes, "sizes": facts.sizes, "hashes": facts.hashes}))
    temporary.replace(folder / ABSENT)


def keep_ref(root: Path, revision: str, commit: str) -> None:
    """Note which commit a branch or tag stands for."""
    if revision == commit:
        return
    path = root / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(commit)
    temporary.replace(path)


def link(root: Path, commit: str, name: str, blob: str) -> None:
    """Give the blob its name in the snapshot of that commit."""
    path = root / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    target = f"{'../' * (2 + name.count('/'))}blobs/{blob}"
    if not (path.is_symlink() and os.readlink(path) == target):
        path.unlink(missing_ok=True)
        with suppress(FileExistsError):  # another download was faster
            path.symlink_to(target)


def _commits(repo: str, revision: str) -> Iterator[str]:
    if COMMIT.fullmatch(revision):
        yield revision
        return
    for root in (downloads(repo), headers(repo)):
        with suppress(OSError, ValueError):
            commit = (root / "refs" / revision).read_text(encoding="utf-8").strip()
            if COMMIT.fullmatch(commit):
                yield commit
