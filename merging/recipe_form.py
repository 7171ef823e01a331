"""The form of a recipe file: YAML read safely, with caps, and every fault of form named. Knows no method."""

import re
from collections.abc import Collection, Iterator
from typing import Any

import yaml

from merging.errors import Fix, UserError
from merging.tokenizer_choice import choice_faults
from merging.words import nearest, nearest_name, shown

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
    "tokenizer",
    "chat_template",
    "seed",
    "name",
    "note",
)
DTYPES = ("float32", "float16", "bfloat16")
# YAML 1.1 as PyYAML reads it takes 1e-3 for text; people mean the number.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def read_yaml(text: str) -> Any:
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


def mend_key(at: tuple[str | int, ...], known: Collection[str]) -> Fix:
    """The fix of a key that nobody knows: the nearest known one instead of it, or none."""
    name = nearest_name(str(at[-1]), known)
    return Fix(f"Write `{name}`", "rename", at, name) if name else Fix(f"Leave `{at[-1]}` out", "drop", at)


def faults(document: dict) -> Iterator[UserError]:
    for key in document:
        if key in ("slices", "modules"):
            yield UserError("E_SLICES", "recipes with layer slices are not read yet", where=key, do="Write `models:`.")
        elif key not in TOP_KEYS:
            fix = mend_key((key,), TOP_KEYS) if isinstance(key, str) else None
            do = nearest(str(key), TOP_KEYS)
            yield UserError("E_KEY", f"no such key: {shown(key)}.", where="recipe", do=do, fix=fix)
    if not isinstance(document.get("merge_method"), str):
        yield UserError("E_METHOD", "a recipe names its method", where="merge_method", do="Write `merge_method: resm`.")
    if not isinstance(document.get("base_model"), (str, type(None))):
        yield UserError("E_RECIPE", "must be a folder or model id", where="base_model")
    for key in ("dtype", "out_dtype"):
        if document.get(key) is not None and document[key] not in DTYPES:
            fix = Fix("Write bfloat16", "set", (key,), "bfloat16")
            yield UserError("E_DTYPE", f"{shown(document[key])} is none of {', '.join(DTYPES)}", where=key, fix=fix)
    seed = document.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        fix = Fix("Use seed 0", "set", ("seed",), 0)
        yield UserError("E_SEED", "must be a whole number from 0", where="seed", fix=fix)
    for key in ("tokenizer_source", "chat_template", "name", "note"):
        if not isinstance(document.get(key), (str, int, float, type(None))):
            yield UserError("E_RECIPE", "must be text", where=key)
    yield from choice_faults(document)
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
                do = nearest(str(key), ("model", "parameters"))
                fix = mend_key(("models", i - 1, key), ("model", "parameters")) if isinstance(key, str) else None
                yield UserError("E_KEY", f"no such key: {shown(key)}.", where=place, do=do, fix=fix)
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
        words = [item for item in value if isinstance(item, str) and not NUMBER.fullmatch(item)]
        plain = all(isinstance(item, (int, float, str)) and not isinstance(item, bool) for item in value)
        return plain and len(words) in (0, len(value))
    return isinstance(value, (bool, int, float, str, type(None)))
