"""Which measurement of the experts a recipe needs (see `merging/calibration.py`), and whether it is made."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

from eval.calibrating.kept import FORM
from eval.calibrating.texts import read_for
from merging.errors import UserError
from merging.methods import METHODS
from merging.plan import members
from merging.recipe import Recipe
from merging.shapers import SHAPERS
from ui.session import Session

STEPS = (64, 256, 1024)  # texts an expert: at first, and on each further press


def with_measurement(session: Session, home: Path, *, anyway: bool = False) -> Session:
    """Names the measurement of these models, made or not, where method or shaper needs one (or `anyway`) and the recipe
    names no other; of several the one of most texts.
    """
    recipe, folder = session.recipe, home / "calibrations"
    if not (_stream(recipe) or anyway) or (recipe.calibration and Path(recipe.calibration).parent != folder):
        return session
    if recipe.calibration and Path(recipe.calibration).name.startswith(_key(recipe)):
        return session
    first, *more = (measured_by(recipe, home, None, each) for each in STEPS)
    named = next((one for one in reversed(more) if one.is_dir()), first)
    return replace(session, recipe=replace(recipe, calibration=str(named)))


def is_missing(recipe: Recipe, *, anyway: bool = False) -> bool:
    return bool(_stream(recipe) or anyway) and not (
        recipe.calibration and (recipe.folder / recipe.calibration).is_dir()
    )


def measured_by(recipe: Recipe, home: Path, texts: Path | None, each: int) -> Path:
    """The folder of a measurement of these models by so many texts each, of a file that `own_file` keeps or of Town."""
    return home / "calibrations" / "-".join([_key(recipe), *([texts.stem] if texts else []), str(each)])


def own_file(home: Path, given: Path) -> Path:
    """A visitor's file of texts, kept under its hash: more of it may be asked for later."""
    kept = home / "calibrations" / f"{hashlib.sha256(given.read_bytes()).hexdigest()[:12]}.jsonl"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        copyfile(given, part)
        part.replace(kept)
    return kept


def file_of(recipe: Recipe, home: Path) -> Path | None:
    """The visitor's file that its measurement was made by."""
    _, *marks = Path(recipe.calibration or "").name.split("-")
    file = home / "calibrations" / f"{marks[0]}.jsonl" if marks else home
    return file if file.is_file() else None


def next_step(recipe: Recipe, home: Path) -> int:
    """How many texts of each expert it could be measured on next; 0 where it merges by no measurement that is made
    here, or there are no more.
    """
    here = Path(recipe.calibration or "")
    if here.parent != home / "calibrations" or not _stream(recipe) or is_missing(recipe):
        return 0
    read = next((each for each in STEPS if here.name.endswith(f"-{each}")), 0)
    after = next((each for each in STEPS if each > read), 0)
    if after and (file := file_of(recipe, home)):
        has_more = any(len(own) > read for own in read_for(str(file), members(recipe)[1:], after))
        return after if has_more else 0
    return after


def texts_read(recipe: Recipe) -> str:
    """How many texts of whom it merges by, in words; nothing where it merges by none."""
    texts = recipe.folder / (recipe.calibration or "") / "texts.jsonl"
    if not _stream(recipe) or not texts.is_file():
        return ""
    counts = Counter(json.loads(line)["expert"] for line in texts.read_text(encoding="utf-8").splitlines())
    if len(set(counts.values())) == 1 and len(counts) == len(recipe.beside_base):
        return f"Measured on {max(counts.values())} texts of each expert."
    return f"Measured on {' and '.join(f'{n} texts of {name}' for name, n in counts.items())}."


def refuse_missing(recipe: Recipe) -> None:
    if is_missing(recipe):
        method = METHODS[recipe.method]
        needs = method.title if method.calibrated else f"The shaper `{dict(recipe.parameters).get('shaper')}`"
        by = "what the experts read"
        if _stream(recipe) == "gradients":
            by = "how much the experts' answers depend on each weight"
        raise UserError(
            "E_CALIBRATION",
            f"{needs} merges by {by}, which is not measured yet.",
            kept="The pictures still show your last good merge.",
            do="Press Measure the experts.",
        )


def _stream(recipe: Recipe) -> str:
    """What must be measured: for the method, else for a shaper of all matrices."""
    shaper = SHAPERS.get(str(dict(recipe.parameters).get("shaper")))
    return METHODS[recipe.method].calibrated or ("own" if shaper and shaper.calibrated else "")


def _key(recipe: Recipe) -> str:
    """Of what is measured: the stream and the models."""
    said = [FORM, _stream(recipe) or "own", *(model.fingerprint for model in members(recipe))]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]
