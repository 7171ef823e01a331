"""What calibration measured of a family: the inputs that its tensors met while each expert read its own text.

A folder: `about.json`, and a safetensors file of float32 numbers for each expert and each part of the model (a layer,
or the ends: embedding and head). `eval/calibrating/calibrate.py` writes it; this reads it, one matrix at a time.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from merging.errors import UserError
from merging.words import count, first_names

if TYPE_CHECKING:
    from merging.checkpoint import Checkpoint
    from merging.method import Method
    from merging.recipe import Recipe
    from merging.shaper import Shaper

ABOUT = "about.json"
ENDS = "ends"  # the part of a model before and after its layers
HEAD = "head"  # the part after them, where the merge's stream is followed to it
GRADIENTS = "gradients"  # the file of an expert's gradients
GAINS = "gains"  # the file of the gains of an expert's parts
BASE = "base"  # the file of what the base's matrices read in an expert's text
FISHER, SALIENCY, BASE_SALIENCY = "fisher of ", "saliency of ", "base saliency of "  # before a tensor's name
COUNTS = "looked up"  # the key of an embedding's counts
SQUARES = "squares of "  # before a norm's name
Stream = Literal["own", "merged", "learned", "gradients"]  # learned: merged, with gains
Scope = Literal["matrix", "block", "model"]


class About(BaseModel):
    """What `about.json` says. `matrices` names, for each tensor with linear inputs, the part of the model that it lies
    in and the tensor under whose name its Gram matrix is kept (tensors that read the same input share one). `norms`
    names for each norm's scale the part that it lies in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    base: str
    experts: tuple[str, ...]  # fingerprints, as the base's
    stream: Stream
    tokens: tuple[int, ...]
    matrices: dict[str, tuple[str, str]]
    embedding: str  # the tensor whose rows are looked up; its rows are counted
    norms: dict[str, str] = {}
    base_columns: bool = False  # whether the base's own inputs are there
    transposed: tuple[str, ...] = ()  # matrices kept as (inputs, outputs)
    products: dict[str, tuple[tuple[tuple[float, ...], ...], ...]] = {}
    gradients: tuple[str, ...] = ()  # tensors with gradients
    gains: tuple[str, ...] = ()  # tensors with gains
    files: dict[str, str] = {}  # sha256 by name, once all are written


@dataclass(frozen=True)
class Inputs:
    """What a calibrated method learns of one tensor's inputs, for the experts that it merges, in their order.

    gram: t -> (n, n) float32, the mean over tokens of x x^T that a matrix (m, n) met in expert t's text; None where it
    was not measured. counts: (T, rows) of an embedding, how often a row was looked up, a token. products: (T, T, T)
    float64 `M[t, s, u] = <X_t D_s^T, X_t D_u^T>` a token, summed over the matrices of a scope. transposed: the matrix
    is kept as (n, m). fisher: t -> the mean over expert t's texts of its squared gradient, over the
    mean of that in the whole model. saliency: t -> the means of `|w dL/dw|` in the base and in expert t. Both are of
    the tensor's shape, float32. squares: (T, n) of the scale of a norm, the mean squared input that each entry met.
    base_columns: (T, 2, n) the means of |x_j| and x_j^2 that the matrix met in expert t's text in the base. gains:
    (T, n) how strong each expert's part is to be in each entry of the tensor's last axis.
    """

    gram: Callable[[int], Tensor] | None = None
    counts: Tensor | None = None
    products: Callable[[Scope], Tensor] | None = None
    transposed: bool = False
    fisher: Callable[[int], Tensor] | None = None
    saliency: Callable[[int], tuple[Tensor, Tensor]] | None = None
    squares: Tensor | None = None
    base_columns: Callable[[], Tensor] | None = None
    gains: Tensor | None = None


@dataclass(frozen=True)
class Calibration:
    folder: Path
    about: About

    @cached_property
    def digest(self) -> str:
        """sha256 of everything in it: the files' own hashes stand in `about.json`."""
        return hashlib.sha256(self.about.model_dump_json().encode()).hexdigest()

    def knows(self, experts: Sequence[str]) -> bool:
        """Whether it was measured on all of these, by their fingerprints."""
        return set(experts) <= set(self.about.experts)

    def inputs(self, name: str, experts: Sequence[str], device: str | torch.device = "cpu") -> Inputs:
        """Of one tensor, for these experts by their fingerprints."""
        places = [self.about.experts.index(expert) for expert in experts]

        def gram(t: int) -> Tensor:
            part, kept_as = self.about.matrices[name]
            return _read(self.folder / file_name(places[t], part), kept_as).to(device)

        def gradient(kind: str, t: int) -> Tensor:
            return _read(self.folder / file_name(places[t], GRADIENTS), kind + name).to(device)

        def stacked(part: str, key: str) -> Tensor:
            return torch.stack([_read(self.folder / file_name(t, part), key) for t in places]).to(device)

        has_gradients = name in self.about.gradients
        return Inputs(
            gram if name in self.about.matrices else None,
            stacked(ENDS, COUNTS) if name == self.about.embedding else None,
            partial(self._products, name, places) if name in self.about.products else None,
            name in self.about.transposed,
            partial(gradient, FISHER) if has_gradients else None,
            (lambda t: (gradient(BASE_SALIENCY, t), gradient(SALIENCY, t))) if has_gradients else None,
            stacked(self.about.norms[name], SQUARES + name) if name in self.about.norms else None,
            (lambda: stacked(BASE, self.about.matrices[name][1])) if self._has_columns(name) else None,
            stacked(GAINS, name) if name in self.about.gains else None,
        )

    def _has_columns(self, name: str) -> bool:
        return self.about.base_columns and name in self.about.matrices and name != self.about.embedding

    def _products(self, name: str, experts: list[int], scope: Scope) -> Tensor:
        part = self.about.matrices[name][0]
        names = [
            one
            for one in self.about.products
            if scope == "model" or one == name or (scope == "block" and self.about.matrices[one][0] == part)
        ]
        whole = torch.tensor([self.about.products[one] for one in names], dtype=torch.float64).sum(0)
        return whole[experts][:, experts][:, :, experts]


def calibration_of(
    recipe: "Recipe",
    method: "Method",
    shapers: Sequence["Shaper"],
    experts: Sequence["Checkpoint"],
    base: "Checkpoint",
    problems: list[UserError],
    notices: list[str],
) -> Calibration | None:
    """What the recipe names, where it fits these models. A method or shaper that merges by it must have it; to others
    it only adds a picture.
    """
    needs = [one.id for one in (method, *shapers) if one.calibrated]
    if not needs and not recipe.calibration:
        return None
    try:
        found = _wanted(recipe, method, " and ".join(f"`{name}`" for name in needs))
        _check(found, recipe, needs, experts, base)
    except UserError as error:
        if needs:
            problems.append(error)
        else:
            notices.append(f"calibration: {error.what}; `{method.id}` merges without it.")
        return None
    return found


def _check(
    found: Calibration,
    recipe: "Recipe",
    needs: Sequence[str],
    experts: Sequence["Checkpoint"],
    base: "Checkpoint",
) -> None:
    """Raises where it was measured on others, or is not whole."""
    where = recipe.calibration or ""
    is_whole = bool(found.about.files)  # else it is being made, and its norms may come
    if dict(recipe.parameters).get("norms") == "lot" and is_whole and not found.about.norms:
        raise UserError("E_CALIBRATION", "it says nothing of norms, which `norms: lot` merges by", where=where, do=MAKE)
    if "aim" in needs and not found.about.base_columns:
        raise UserError("E_CALIBRATION", "it says nothing of what the base reads", where=where, do=MAKE_WITH_BASE)
    if found.about.base != base.fingerprint or not found.knows([one.fingerprint for one in experts]):
        raise UserError("E_CALIBRATION", "it was measured on other models", where=where, do=MAKE)
    if lost := [name for name in found.about.files if not (found.folder / name).is_file()]:
        what = f"{count(lost, 'file')} of it cannot be found: {first_names(lost)}"
        raise UserError("E_CALIBRATION", what, where=where, do=MAKE)


def _wanted(recipe: "Recipe", method: "Method", needs: str) -> Calibration:
    if recipe.slices:
        what = f"{needs or 'what calibration measured'} is for merges of whole models, not slices"
        raise UserError("E_CALIBRATION", what, where="slices", do="Write `models:`, or take another method.")
    if not recipe.calibration:
        what = f"{needs} needs to know what the experts' matrices read"
        raise UserError("E_CALIBRATION", what, where="calibration", do=f"{MAKE} Then write `calibration: FOLDER`.")
    found = open_calibration(recipe.folder / recipe.calibration)
    if method.calibrated and (found.about.stream, method.calibrated) not in _SERVES:
        what = f"`{method.id}` needs the {method.calibrated} stream; this has the {found.about.stream} one"
        raise UserError("E_CALIBRATION", what, where=recipe.calibration, do=MAKE)
    return found


_SERVES = {
    ("own", "own"), ("merged", "merged"), ("learned", "learned"), ("learned", "merged"),
    ("gradients", "gradients"), ("gradients", "own"),
}  # fmt: skip
MAKE = "Measure it: python -m eval calibrate RECIPE.yml FOLDER."
MAKE_WITH_BASE = "Measure it: python -m eval calibrate RECIPE.yml FOLDER --base."


def file_name(t: int, part: str) -> str:
    return f"{t}-{part}.safetensors"


def open_calibration(folder: Path) -> Calibration:
    """Reads `about.json` alone. Raises UserError where there is no calibration, or another format."""
    path = folder / ABOUT
    try:
        return Calibration(folder, About.model_validate_json(path.read_bytes()))
    except OSError as error:
        raise UserError("E_CALIBRATION", "there is no calibration here", where=str(folder), do=MAKE) from error
    except ValidationError as error:
        first = error.errors()[0]
        what = f"about.json is not as calibrate writes it ({first['msg']})"
        raise UserError("E_CALIBRATION", what, where=str(path), do=MAKE) from error


def _read(path: Path, key: str) -> Tensor:
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        what = f"it cannot be read: {str(error)[:200]}"
        raise UserError("E_CALIBRATION", what, where=str(path), do=MAKE) from error
