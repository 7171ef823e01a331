"""Which measurement of the experts a recipe needs (see `merging/calibration.py`), and whether it is made."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from merging.methods import METHODS
from merging.models import open_model
from merging.recipe import Recipe
from ui.session import Session

EACH = 64  # texts an expert


def with_measurement(session: Session, home: Path, *, anyway: bool = False) -> Session:
    """Names the measurement of these models, made or not, where the method needs one (or `anyway`) and the recipe names
    no other. One by the texts of a file has the file's hash behind its name.
    """
    recipe, stream = session.recipe, METHODS[session.recipe.method].calibrated or ("own" if anyway else "")
    if not stream or (recipe.calibration and Path(recipe.calibration).parent != home / "calibrations"):
        return session
    models = [
        open_model(m, recipe.folder, base=recipe.base)
        for m in (recipe.base or "", *(expert.model for expert in recipe.beside_base))
    ]
    key = hashlib.sha256(json.dumps([stream, EACH, *(m.fingerprint for m in models)]).encode()).hexdigest()[:24]
    if recipe.calibration and Path(recipe.calibration).name.startswith(key):
        return session
    return replace(session, recipe=replace(recipe, calibration=str(home / "calibrations" / key)))


def is_missing(recipe: Recipe, *, anyway: bool = False) -> bool:
    needs = METHODS[recipe.method].calibrated or anyway
    return bool(needs) and not (recipe.calibration and (recipe.folder / recipe.calibration).is_dir())
