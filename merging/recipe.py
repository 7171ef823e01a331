"""A recipe file is a mergekit config: reading it safely, writing it, and resolving a setting for one tensor.

Knows the form of a recipe, not what its settings mean: names and ranges are checked against the method in `plan.py`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from merging.errors import UserError, all_of
from merging.recipe_form import MAX_CHARACTERS, NUMBER, faults, read_yaml
from merging.tokenizer_choice import TokenizerChoice, read_choice
from merging.words import shown


@dataclass(frozen=True)
class Case:
    """`{filter, value}`: the value for tensors whose name contains `filter` (None: for all)."""

    filter: str | None
    value: "Setting"


# A number, switch or word; numbers over depth (a gradient); words (globs); or cases, the first that fits counts.
Setting = float | int | bool | str | None | tuple["float | str | Case", ...]
Settings = tuple[tuple[str, Setting], ...]


@dataclass(frozen=True)
class Expert:
    """One entry of `models:`."""

    model: str
    parameters: Settings = ()

    @property
    def name(self) -> str:
        """What the screen calls it: the last part of its path or id, an adapter's where it has one."""
        last = self.model.rstrip("/").rsplit("/", 1)[-1]
        return last.rpartition("+")[2] or last


@dataclass(frozen=True)
class Recipe:
    """A merge, as written down: hashable, comparable, round trips through mergekit's YAML.

    `experts` is the `models:` list as written (it may name the base). `folder` is where relative model folders are
    looked for; it is no part of the recipe.
    """

    method: str
    base: str | None
    experts: tuple[Expert, ...]
    parameters: Settings = ()
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    tokenizer: TokenizerChoice | None = None
    chat_template: str | None = None
    seed: int = 0
    name: str = ""
    note: str = ""
    folder: Path = Path()

    def is_base(self, model: str) -> bool:
        """Whether an entry of `models:` is the base, however its folder is spelled."""
        return self.base is not None and os.path.normpath(model) == os.path.normpath(self.base)

    @property
    def vocabulary(self) -> TokenizerChoice | None:
        """What is said about the merge's tokens, in either of mergekit's two ways."""
        return self.tokenizer or (TokenizerChoice(self.tokenizer_source) if self.tokenizer_source else None)

    def to_yaml(self) -> str:
        document: dict[str, Any] = {"name": self.name, "note": self.note, "merge_method": self.method}
        document["base_model"] = self.base
        document["models"] = [
            {"model": e.model, **({"parameters": _plain(e.parameters)} if e.parameters else {})} for e in self.experts
        ]
        document["parameters"] = _plain(self.parameters)
        for key in ("dtype", "out_dtype", "tokenizer_source", "chat_template", "seed"):
            document[key] = getattr(self, key)
        document["tokenizer"] = self.tokenizer.plain() if self.tokenizer else None
        return yaml.safe_dump(
            {
                key: value
                for key, value in document.items()
                if value not in (None, "", {}) and (key, value) != ("seed", 0)
            },
            sort_keys=False,
            allow_unicode=True,
            width=100,
        )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; relative folders in it are looked for beside the file."""
    where = shown(str(path), 200)[1:-1]
    try:
        if not path.is_file():
            do = "Give the path of a YAML file."
            raise UserError("E_RECIPE", "there is no such recipe file", where=where, do=do)
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            raise UserError("E_RECIPE_SIZE", f"larger than {MAX_CHARACTERS:,} characters", where=where)
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("E_RECIPE", "cannot be read as UTF-8 text", where=where) from error
    except OSError as error:
        raise UserError("E_RECIPE", f"cannot be read: {error.strerror}", where=where) from error
    return parse_recipe(text, path.resolve().parent)


def parse_recipe(text: str, folder: Path) -> Recipe:
    """Build a recipe from YAML text; every fault of form is listed in one UserError."""
    document = read_yaml(text)
    if not isinstance(document, dict):
        raise UserError("E_RECIPE", "a recipe is a mapping such as `merge_method: ties`", where="recipe")
    problems = list(faults(document))
    if problems:
        raise all_of(problems, kept="")

    def word(key: str) -> str:
        return str(document.get(key) or "")

    base = document.get("base_model")
    return Recipe(
        method=document["merge_method"],
        base=None if base is None else str(base),
        experts=tuple(Expert(str(m["model"]), _settings(m.get("parameters"))) for m in document["models"]),
        parameters=_settings(document.get("parameters")),
        dtype=document.get("dtype"),
        out_dtype=document.get("out_dtype"),
        tokenizer_source=word("tokenizer_source") or None,
        tokenizer=read_choice(document["tokenizer"]) if document.get("tokenizer") is not None else None,
        chat_template=word("chat_template") or None,
        seed=document.get("seed", 0),
        name=word("name"),
        note=word("note"),
        folder=folder,
    )


def resolve(setting: Setting, tensor: str, depth: float) -> float | int | bool | str | tuple[str, ...] | None:
    """The value of a setting for one tensor at `depth` (0 first layer .. 1 last), as mergekit resolves it.

    Gradients interpolate linearly; of cases the first whose filter occurs in the tensor's name counts; None where
    no case fits (the caller then asks the next wider scope).
    """
    if not isinstance(setting, tuple):
        return setting
    if setting and all(isinstance(item, Case) for item in setting):
        for case in setting:
            assert isinstance(case, Case)
            if case.filter in (None, "*") or case.filter in tensor:
                return resolve(case.value, tensor, depth)
        return None
    numbers = [item for item in setting if isinstance(item, (int, float))]
    if len(numbers) < len(setting) or not setting:
        return tuple(str(item) for item in setting)
    place = depth * (len(numbers) - 1)
    left = min(int(place), len(numbers) - 1)
    right = min(left + 1, len(numbers) - 1)
    return numbers[left] + (place - left) * (numbers[right] - numbers[left])


def _settings(raw: dict | None) -> Settings:
    return tuple((key, _setting(value)) for key, value in (raw or {}).items())


def _setting(value: Any) -> Setting:
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return tuple(_item(item) for item in value)
    return value


def _item(value: Any) -> float | str | Case:
    if isinstance(value, dict):
        return Case(value.get("filter"), _setting(value["value"]))
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def _plain(settings: Settings) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in settings}


def _plain_value(value: Setting) -> Any:
    if not isinstance(value, tuple):
        return value
    return [_plain_case(item) if isinstance(item, Case) else item for item in value]


def _plain_case(case: Case) -> dict[str, Any]:
    value = {"value": _plain_value(case.value)}
    return value if case.filter is None else {"filter": case.filter, **value}
