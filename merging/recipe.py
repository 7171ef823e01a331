"""A recipe file is a mergekit config: reading it safely, writing it, and resolving a setting for one tensor.

Knows the form of a recipe, not what its settings mean: names and ranges are checked against the method in `plan.py`.
"""

import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from merging.errors import UserError, all_of

MAX_CHARACTERS = 200_000
MAX_DEPTH = 12
MAX_NODES = 20_000  # after aliases are spelled out

TOP_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "chat_template",
    "seed",
    "name",
    "note",
)
DTYPES = ("float32", "float16", "bfloat16")
# YAML 1.1 as PyYAML reads it takes 1e-3 for text; people mean the number.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


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
        """What the screen calls it: the last part of its path or id."""
        return self.model.rstrip("/").rsplit("/", 1)[-1]


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
    chat_template: str | None = None
    seed: int = 0
    name: str = ""
    note: str = ""
    folder: Path = Path()

    def to_yaml(self) -> str:
        document: dict[str, Any] = {"name": self.name, "note": self.note, "merge_method": self.method}
        document["base_model"] = self.base
        document["models"] = [
            {"model": e.model, **({"parameters": _plain(e.parameters)} if e.parameters else {})} for e in self.experts
        ]
        document["parameters"] = _plain(self.parameters)
        for key in ("dtype", "out_dtype", "tokenizer_source", "chat_template", "seed"):
            document[key] = getattr(self, key)
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
    if not path.is_file():
        raise UserError("E_RECIPE", "there is no such recipe file", where=str(path), do="Give the path of a YAML file.")
    if path.stat().st_size > 4 * MAX_CHARACTERS:
        raise UserError("E_RECIPE_SIZE", f"larger than {MAX_CHARACTERS:,} characters", where=str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError("E_RECIPE", "cannot be read as UTF-8 text", where=str(path)) from error
    return parse_recipe(text, path.resolve().parent)


def parse_recipe(text: str, folder: Path) -> Recipe:
    """Build a recipe from YAML text; every fault of form is listed in one UserError."""
    document = _read_yaml(text)
    if not isinstance(document, dict):
        raise UserError("E_RECIPE", "a recipe is a mapping such as `merge_method: ties`", where="recipe")
    problems = list(_faults(document))
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


def nearest(word: str, known: Collection[str]) -> str:
    """`Did you mean X?`, or nothing when no known name is near."""
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f"Did you mean `{close[0]}`?" if close else ""


def shown(value: object) -> str:
    """A value fit for a message: one short line, whatever it is."""
    text = repr(value) if not isinstance(value, (list, dict, tuple)) else f"a {type(value).__name__} of {len(value)}"
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"


def _read_yaml(text: str) -> Any:
    """Safe load with caps on size, depth and aliases, checked before anything is built."""
    if len(text) > MAX_CHARACTERS:
        raise UserError("E_RECIPE_SIZE", f"larger than {MAX_CHARACTERS:,} characters", where="recipe")
    try:
        _check_shape(yaml.parse(text, Loader=yaml.SafeLoader))
        return yaml.load(text, Loader=_NoDuplicates)  # derived from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "recipe"
        reason = str(getattr(error, "problem", None) or "not YAML")
        raise UserError("E_YAML", f"not readable as YAML: {reason[:120]}", where=place) from error
    except (ValueError, OverflowError, RecursionError) as error:  # an impossible date or number
        raise UserError("E_YAML", "holds a value that YAML cannot read", where="recipe") from error


def _check_shape(events: Iterator[Any]) -> None:
    """Refuse deep nesting and anything that grows beyond MAX_NODES once its aliases are spelled out."""
    sizes: dict[str, int] = {}  # nodes below each anchor
    open_nodes: list[tuple[str | None, int]] = []  # anchor and node count at its start
    total = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserError("E_RECIPE_ALIAS", "an alias refers to itself or to nothing", where="recipe")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            open_nodes.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - start + 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if len(open_nodes) > MAX_DEPTH:
            raise UserError("E_RECIPE_DEPTH", f"nested deeper than {MAX_DEPTH} levels", where="recipe")
        if total > MAX_NODES:
            raise UserError("E_RECIPE_SIZE", f"holds more than {MAX_NODES:,} values", where="recipe")


class _NoDuplicates(yaml.SafeLoader):
    """A SafeLoader that refuses a key written twice instead of keeping the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1 and key != "<<"), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {shown(twice)} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _faults(document: dict) -> Iterator[UserError]:
    for key in document:
        if key in ("slices", "modules"):
            yield UserError("E_SLICES", "recipes with layer slices are not read yet", where=key, do="Write `models:`.")
        elif key == "tokenizer":
            yield UserError("E_TOKENIZER", "not read yet", where=key, do="Write `tokenizer_source:` instead.")
        elif key not in TOP_KEYS:
            yield UserError("E_KEY", f"no such key: {shown(key)}.", where="recipe", do=nearest(str(key), TOP_KEYS))
    if not isinstance(document.get("merge_method"), str):
        yield UserError("E_METHOD", "a recipe names its method", where="merge_method", do="Write `merge_method: resm`.")
    if not isinstance(document.get("base_model"), (str, type(None))):
        yield UserError("E_RECIPE", "must be a folder or model id", where="base_model")
    for key in ("dtype", "out_dtype"):
        if document.get(key) is not None and document[key] not in DTYPES:
            yield UserError("E_DTYPE", f"{shown(document[key])} is none of {', '.join(DTYPES)}", where=key)
    seed = document.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        yield UserError("E_SEED", "must be a whole number from 0", where="seed")
    for key in ("tokenizer_source", "chat_template", "name", "note"):
        if not isinstance(document.get(key), (str, int, float, type(None))):
            yield UserError("E_RECIPE", "must be text", where=key)
    yield from _settings_faults(document.get("parameters"), "parameters")
    models = document.get("models")
    if not isinstance(models, list) or not models:
        yield UserError(
            "E_MODELS", "a recipe lists at least one model", where="models", do="Write `models: [{model: FOLDER}]`."
        )
        return
    for i, entry in enumerate(models, 1):
        place = f"models, entry {i}"
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str) or not entry["model"].strip():
            yield UserError("E_MODELS", "an entry is `model: FOLDER` with optional `parameters:`", where=place)
            continue
        for key in entry:
            if key not in ("model", "parameters"):
                yield UserError(
                    "E_KEY", f"no such key: {shown(key)}.", where=place, do=nearest(str(key), ("model", "parameters"))
                )
        yield from _settings_faults(entry.get("parameters"), f"{place}, parameters")


def _settings_faults(raw: Any, place: str) -> Iterator[UserError]:
    if raw is None:
        return
    if not isinstance(raw, dict):
        yield UserError("E_PARAMETERS", "must be a mapping such as `weight: 0.5`", where=place)
        return
    for key, value in raw.items():
        if not isinstance(key, str):
            yield UserError("E_KEY", f"no such key: {shown(key)}", where=place)
        elif not _is_setting(value):
            yield UserError(
                "E_SETTING",
                "must be a number, a list of numbers, or a list of {filter, value}",
                where=f"{place}, {key}",
            )


def _is_setting(value: Any, inside: bool = False) -> bool:
    if isinstance(value, dict):
        known = set(value) <= {"filter", "value"} and "value" in value
        return (
            not inside
            and known
            and isinstance(value.get("filter"), (str, type(None)))
            and _is_setting(value["value"], True)
        )
    if isinstance(value, list):
        cases = [item for item in value if isinstance(item, dict)]
        if cases:
            return not inside and len(cases) == len(value) and all(_is_setting(item) for item in value)
        words = [item for item in value if isinstance(item, str) and not _NUMBER.fullmatch(item)]
        plain = all(isinstance(item, (int, float, str)) and not isinstance(item, bool) for item in value)
        return plain and len(words) in (0, len(value))
    return isinstance(value, (bool, int, float, str, type(None)))


def _settings(raw: dict | None) -> Settings:
    return tuple((key, _setting(value)) for key, value in (raw or {}).items())


def _setting(value: Any) -> Setting:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return tuple(_item(item) for item in value)
    return value


def _item(value: Any) -> float | str | Case:
    if isinstance(value, dict):
        return Case(value.get("filter"), _setting(value["value"]))
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _plain(settings: Settings) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in settings}


def _plain_value(value: Setting) -> Any:
    if not isinstance(value, tuple):
        return value
    return [_plain_case(item) if isinstance(item, Case) else item for item in value]


def _plain_case(case: Case) -> dict[str, Any]:
    value = {"value": _plain_value(case.value)}
    return value if case.filter is None else {"filter": case.filter, **value}
