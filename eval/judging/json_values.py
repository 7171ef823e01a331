"""JSON inside an answer: the first value in it, and whether that is of a schema."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value),
}
KEYWORDS = {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
    "uniqueItems", "minLength", "maxLength", "pattern", "minimum", "maximum", "anyOf", "allOf", "contains", "not",
}  # fmt: skip


def first_json(answer: str) -> tuple[bool, Any]:
    """Whether there is an object or array in the answer, and the first of them. A number or word in prose is none."""
    decoder = json.JSONDecoder()
    try:
        return True, decoder.decode(answer.strip())
    except ValueError:
        pass
    for start in (match.start() for match in re.finditer(r"[\[{]", answer)):
        try:
            return True, decoder.raw_decode(answer, start)[0]
        except ValueError:
            continue
    return False, None


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """JSON Schema's meaning of `KEYWORDS`. Strings of `enum` and `const` are compared without case and outer spaces.

    Raises ValueError for another keyword, so that no probe asks for what is not checked.
    """
    if unknown := set(schema) - KEYWORDS:
        raise ValueError(f"not checked: {', '.join(sorted(unknown))}")
    return all(_holds(value, keyword, wanted, schema) for keyword, wanted in schema.items())


def _holds(value: Any, keyword: str, wanted: Any, schema: Mapping[str, Any]) -> bool:
    match keyword, value:
        case "type", _:
            return any(_TYPES[name](value) for name in (wanted if isinstance(wanted, list) else [wanted]))
        case "enum", _:
            return any(_same(value, one) for one in wanted)
        case "const", _:
            return _same(value, wanted)
        case "anyOf", _:
            return any(fits(value, one) for one in wanted)
        case "allOf", _:
            return all(fits(value, one) for one in wanted)
        case "not", _:
            return not fits(value, wanted)
        case "properties", dict():
            return all(fits(value[name], inner) for name, inner in wanted.items() if name in value)
        case "required", dict():
            return all(name in value for name in wanted)
        case "additionalProperties", dict():
            rest = [inner for name, inner in value.items() if name not in schema.get("properties", {})]
            return all(fits(inner, wanted) for inner in rest) if isinstance(wanted, dict) else wanted or not rest
        case "items", list():
            return all(fits(inner, wanted) for inner in value)
        case "contains", list():
            return any(fits(inner, wanted) for inner in value)
        case "minItems", list():
            return len(value) >= wanted
        case "maxItems", list():
            return len(value) <= wanted
        case "uniqueItems", list():
            return not wanted or len({json.dumps(inner, sort_keys=True) for inner in value}) == len(value)
        case "minLength", str():
            return len(value) >= wanted
        case "maxLength", str():
            return len(value) <= wanted
        case "pattern", str():
            return re.search(wanted, value, re.IGNORECASE) is not None
        case (("minimum" | "maximum"), (int() | float())):
            return value >= wanted if keyword == "minimum" else value <= wanted
        case _:
            return True  # a keyword about another type than the value's says nothing


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value.strip().lower() == wanted.strip().lower()
    if isinstance(value, bool) != isinstance(wanted, bool):
        return False
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(_same(value[key], wanted[key]) for key in wanted)
    return value == wanted
