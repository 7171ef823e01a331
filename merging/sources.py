"""Where a recipe's model lies on this machine, and which of its files may be opened. Knows nothing of weights."""

import os
from pathlib import Path

from merging.errors import UserError
from merging.hub_cache import HUB_ID, local_model
from merging.words import shown


def find_folder(source: str, beside: Path) -> Path:
    """The model's folder: absolute, beside the recipe, or of a Hub model what of it is on this machine."""
    try:
        folder = beside / Path(source).expanduser()
        if folder.is_dir():
            return Path(os.path.abspath(folder))
        exists = os.path.lexists(folder)
    except (OSError, ValueError, RuntimeError):  # too long, a NUL inside, an unknown ~user
        raise _missing(source, "this is not the name of a folder.") from None
    if exists:
        raise _missing(source, "this is not a folder.")
    if not HUB_ID.fullmatch(source):
        raise _missing(source, "there is no such folder.")
    if snapshot := local_model(source):
        return snapshot
    raise UserError("E_MODEL_MISSING", "there is no such folder, and no such model in this machine's Hub cache.",
                    where=shown(source, 200)[1:-1],
                    do=f"Download it first: python -m merging download {source}")  # fmt: skip


def regular_file(folder: Path, name: str) -> Path | None:
    """The folder's own file of that name, or None where there is none.

    ValueError for what is not a plain file inside the folder; a Hub snapshot's links into its own repository are.
    """
    path = folder / name
    if not os.path.lexists(path):
        return None
    try:
        home, target = folder.resolve(), path.resolve()
    except RuntimeError:  # how Python 3.11 and 3.12 tell it
        raise ValueError("the file is a link to itself") from None
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
        raise ValueError("the file leads outside the model's folder")
    if not target.exists():
        raise ValueError("the file is a link to nothing")
    if not target.is_file():
        raise ValueError("this is not a plain file")
    return target


def _missing(source: str, what: str) -> UserError:
    return UserError("E_MODEL_MISSING", what, where=shown(source, 200)[1:-1] or "model",
                     do="Give the folder of a model; a relative one is looked for beside the recipe.")  # fmt: skip
