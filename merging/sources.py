"""Where a recipe's model lies on this machine, and which of its files may be opened. Knows nothing of weights."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import UserError
from merging.hub_cache import HUB_ID, local_model
from merging.words import shown

if TYPE_CHECKING:
    from merging.recipe import Recipe


def find_folder(source: str, beside: Path) -> Path:
    """The model's folder: absolute, beside the recipe, or of a Hub model what of it is on this machine."""
    try:
        folder = beside / Path(source).expanduser()
        if folder.is_dir():
            return Path(os.path.abspath(folder))
        exists = os.path.lexists(folder)
    except (OSError, ValueError, RuntimeError):  # too long, a NUL inside, an unknown ~user
        raise _missing(source, "this is not the name of a folder.") from None
    if exists and source.lower().endswith(".gguf"):
        raise UserError("E_QUANTISED", "this is a GGUF file, made for llama.cpp and mostly quantised.",
                        where=shown(source, 200)[1:-1],
                        do="Give the folder of the safetensors model that it was made from.")  # fmt: skip
    if exists:
        raise _missing(source, "this is not a folder.")
    if not HUB_ID.fullmatch(source):
        raise _missing(source, "there is no such folder.")
    if snapshot := local_model(source):
        return snapshot
    raise UserError("E_MODEL_MISSING", "there is no such folder, and no such model in this machine's Hub cache.",
                    where=shown(source, 200)[1:-1],
                    do=f"Download it first: python -m merging download {source}")  # fmt: skip


def split_source(source: str, beside: Path) -> tuple[str | None, str]:
    """Base and adapter of `base+adapter`; None and the source itself where it names one folder or id."""
    if "+" not in source or _is_folder(beside, source):
        return None, source
    places = [place.start() for place in re.finditer(r"\+", source)]
    # a plus may also stand in a folder's name; the adapter is the last part
    place = next((p for p in reversed(places) if _is_folder(beside, source[p + 1 :])), places[-1])
    return source[:place], source[place + 1 :]


def model_parts(source: str, beside: Path) -> list[str]:
    """The folders and ids that a source names: one, or the base and its adapters."""
    below, last = split_source(source, beside)
    return [last] if below is None else [*model_parts(below, beside), last]


def absolute(source: str, beside: Path) -> str:
    """The source with its folders spelled out, so that it means the same from any folder; Hub ids stay."""
    return "+".join(
        part if HUB_ID.fullmatch(part) and not _is_folder(beside, part)
        else str((beside / Path(part).expanduser()).resolve())
        for part in model_parts(source, beside)
    )  # fmt: skip


def spelled_out(recipe: "Recipe") -> "Recipe":
    """The recipe with absolute folders, for a file that stands beside no model."""
    return recipe.renamed(lambda source: absolute(source, recipe.folder))


def _is_folder(beside: Path, source: str) -> bool:
    try:
        return bool(source) and (beside / Path(source).expanduser()).is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL inside, an unknown ~user
        return False


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
