"""Which measurement of the experts a recipe needs (see `merging/calibration.py`), and whether it is made."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from merging.errors import UserError
from merging.methods import METHODS
from merging.models import open_model
from merging.recipe import Recipe
from merging.shapers import SHAPERS
from ui.session import Session

EACH, MORE = 64, 256  # texts an expert: at first, and on a second press
_VERSION = 3  # of what a measurement holds


def with_measurement(session: Session, home: Path, *, anyway: bool = False) -> Session:
    """Names the measurement of these models, made or not, where method or shaper needs one (or `anyway`) and the recipe
    names no other. One by the texts of a file has the file's hash behind its name, one of more texts their number.
    """
    recipe, stream = session.recipe, _stream(session.recipe) or ("own" if anyway else "")
    if not stream or (recipe.calibration and Path(recipe.calibration).parent != home / "calibrations"):
        return session
    models = [
        open_model(m, recipe.folder, base=recipe.base)
        for m in (recipe.base or "", *(expert.model for expert in recipe.beside_base))
    ]
    said = json.dumps([_VERSION, stream, EACH, *(m.fingerprint for m in models)])
    key = hashlib.sha256(said.encode()).hexdigest()[:24]
    if recipe.calibration and Path(recipe.calibration).name.startswith(key):
        return session
    first, more = (home / "calibrations" / name for name in (key, f"{key}-{MORE}"))
    return replace(session, recipe=replace(recipe, calibration=str(more if more.is_dir() else first)))


def is_missing(recipe: Recipe, *, anyway: bool = False) -> bool:
    return bool(_stream(recipe) or anyway) and not (
        recipe.calibration and (recipe.folder / recipe.calibration).is_dir()
    )


def could_read_more(recipe: Recipe, home: Path) -> bool:
    """Whether it merges by the few texts that are read at first."""
    here = Path(recipe.calibration or "")
    is_first = here.parent == home / "calibrations" and "-" not in here.name
    return bool(_stream(recipe)) and is_first and not is_missing(recipe)


def refuse_missing(recipe: Recipe) -> None:
    if is_missing(recipe):
        needs = recipe.method if METHODS[recipe.method].calibrated else dict(recipe.parameters).get("shaper")
        by = "what the experts read"
        if _stream(recipe) == "gradients":
            by = "how much the experts' answers depend on each weight"
        raise UserError(
            "E_CALIBRATION",
            f"`{needs}` merges by {by}, which is not measured yet.",
            kept="Your last good merge is still live.",
            do="Press Measure the experts.",
        )


def _stream(recipe: Recipe) -> str:
    """What must be measured: for the method, else for a shaper of all matrices."""
    shaper = SHAPERS.get(str(dict(recipe.parameters).get("shaper")))
    return METHODS[recipe.method].calibrated or ("own" if shaper and shaper.calibrated else "")
