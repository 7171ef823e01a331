"""The form of a recipe file: every fault of form named. Knows no method."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from merging.errors import Fix, UserError
from merging.tokenizer_choice import choice_faults
from merging.words import nearest, nearest_name, shown

MAX_SLICES = 512
MAX_LOCKS = 1024

TOP_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "seed",
    "name",
    "note",
    "locks",
    "calibration",
)
DTYPES = ("float32", "float16", "bfloat16")
# YAML 1.1 as PyYAML reads it takes 1e-3 for text; people mean the number.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


At = tuple[str | int, ...]  # a place in a recipe, as a fix names it


def mend_key(at: At, known: Collection[str]) -> Fix:
    """The fix of a key that nobody knows: the nearest known one instead of it, or none."""
    name = nearest_name(str(at[-1]), known)
    return Fix(f"Write `{name}`", "rename", at, name) if name else Fix(f"Leave `{at[-1]}` out", "drop", at)


def faults(document: dict) -> Iterator[UserError]:
    for key in document:
        if key == "modules":
            yield UserError("E_SLICES", "not read yet", where=key, do="Write `models:` or `slices:`.")
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
    for key in ("tokenizer_source", "chat_template", "name", "note", "calibration"):
        if not isinstance(document.get(key), (str, int, float, type(None))):
            yield UserError("E_RECIPE", "must be text", where=key)
    yield from choice_faults(document)
    yield from _settings_faults(document.get("parameters"), "parameters")
    models, slices = document.get("models"), document.get("slices")
    if models is not None and slices is not None:
        yield UserError("E_SLICES", "a recipe has `models:` or `slices:`, not both", where="slices")
    elif slices is not None:
        yield from _slices_faults(slices)
    elif isinstance(models, list) and models:
        for i, entry in enumerate(models, 1):
            yield from _entry_faults(entry, f"models, entry {i}", ("models", i - 1), ("model", "parameters"))
    else:
        yield UserError(
            "E_MODELS", "a recipe lists at least one model", where="models", do="Write `models: [{model: FOLDER}]`."
        )
    yield from _locks_faults(document.get("locks"))


def _entry_faults(entry: Any, place: str, at: At, known: tuple[str, ...]) -> Iterator[UserError]:
    if not isinstance(entry, dict) or not isinstance(entry.get("model"), str) or not entry["model"].strip():
        layers = " and `layer_range: [FROM, TO]`," if "layer_range" in known else ""
        yield UserError("E_MODELS", f"an entry is `model: FOLDER`{layers} with optional `parameters:`", where=place)
        return
    yield from _unknown_keys(entry, place, at, known)
    yield from _settings_faults(entry.get("parameters"), f"{place}, parameters")


def _unknown_keys(entry: dict, place: str, at: At, known: tuple[str, ...]) -> Iterator[UserError]:
    for key in entry:
        if key not in known:
            fix = mend_key((*at, key), known) if isinstance(key, str) else None
            yield UserError("E_KEY", f"no such key: {shown(key)}.", where=place, do=nearest(str(key), known), fix=fix)


def _slices_faults(slices: Any) -> Iterator[UserError]:
    form = "Write `slices: [{sources: [{model: FOLDER, layer_range: [0, 8]}]}]`."
    if not isinstance(slices, list) or not slices:
        yield UserError("E_SLICES", "a recipe lists at least one slice", where="slices", do=form)
        return
    if len(slices) > MAX_SLICES:
        yield UserError("E_RECIPE_SIZE", f"more than {MAX_SLICES} slices", where="slices")
        return
    for i, part in enumerate(slices, 1):
        place = f"slice {i}"
        sources = part.get("sources") if isinstance(part, dict) else None
        if not isinstance(sources, list) or not sources:
            yield UserError("E_SLICES", "a slice lists at least one source", where=place, do=form)
            continue
        yield from _unknown_keys(part, place, ("slices", i - 1), ("sources", "parameters"))
        yield from _settings_faults(part.get("parameters"), f"{place}, parameters")
        lengths = set()
        for j, source in enumerate(sources, 1):
            here = f"{place}, source {j}"
            at = ("slices", i - 1, "sources", j - 1)
            yield from _entry_faults(source, here, at, ("model", "layer_range", "parameters"))
            if isinstance(source, dict) and "model" in source:
                layers = source.get("layer_range")
                if isinstance(layers, list) and _is_range(layers):
                    lengths.add(layers[1] - layers[0])
                else:
                    yield UserError("E_LAYERS", f"layer_range is {shown(layers)}; it must be two whole numbers from 0, "
                                    "the first layer and the one after the last", where=here,
                                    do="Write `layer_range: [0, 8]`.")  # fmt: skip
        if len(lengths) > 1:
            found = ", ".join(map(str, sorted(lengths)))
            yield UserError("E_LAYERS", f"its sources have ranges of {found} layers; they must be equally long",
                            where=place)  # fmt: skip


def _is_range(value: list[Any]) -> bool:
    return len(value) == 2 and all(type(item) is int for item in value) and 0 <= value[0] < value[1]


def _locks_faults(locks: Any) -> Iterator[UserError]:
    if locks is None:
        return
    if not isinstance(locks, list):
        yield UserError("E_LOCK", "must be a list such as `[{tensors: ['*.mlp.*'], to: base}]`", where="locks")
        return
    if len(locks) > MAX_LOCKS:
        yield UserError("E_RECIPE_SIZE", f"more than {MAX_LOCKS} locks", where="locks")
        return
    for i, lock in enumerate(locks, 1):
        place = f"locks, entry {i}"
        if not isinstance(lock, dict):
            yield UserError("E_LOCK", "an entry is `tensors: [PATTERNS]` and `to: base` or a model", where=place)
            continue
        yield from _unknown_keys(lock, place, ("locks", i - 1), ("tensors", "except", "to"))
        if not isinstance(lock.get("to"), str) or not lock["to"].strip():
            yield UserError("E_LOCK", "`to` must be `base` or a model of the recipe", where=place)
        if not lock.get("tensors") or not _are_words(lock["tensors"]):
            yield UserError("E_LOCK", "`tensors` must list name patterns such as `*.mlp.*`", where=place)
        if not _are_words(lock.get("except") or []):
            yield UserError("E_LOCK", "`except` must list name patterns such as `*.mlp.*`", where=place)


def _are_words(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


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
