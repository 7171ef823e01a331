"""JSON from files that nobody vouches for: capped, UTF-8, no key twice, no NaN, not deep. Knows nothing of models."""

import json
from pathlib import Path
from typing import Any

from merging.words import shown

LIMIT, DEPTH = 1 << 20, 32


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """The file's value; ValueError says in plain words what is wrong with it."""
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"it is {size:,} bytes long, more than the {limit:,} that are read")
    return parse_json(path.read_bytes())


def parse_json(data: bytes) -> Any:
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer
        )
        if b"\\u" in data:  # a lone surrogate has no UTF-8 form and fails here
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _deeper_than(value, DEPTH):
        raise ValueError("it is nested too deeply")
    return value


def json_bytes(value: Any) -> bytes:
    """A JSON file for people and programs."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"it has the key {shown(twice)} twice")
    return found


def _constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > 30:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _deeper_than(value: Any, depth: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth < 0 or any(_deeper_than(child, depth - 1) for child in children if isinstance(child, (dict, list)))
