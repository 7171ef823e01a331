"""YAML from strangers: a safe load with caps, duplicates and odd aliases refused."""

from collections.abc import Iterator
from typing import Any

import yaml

from merging.errors import UserError
from merging.words import shown

MAX_CHARACTERS = 200_000
MAX_DEPTH = 12
MAX_NODES = 20_000  # after aliases are spelled out
MAX_DOCUMENTS = 32


def read_yaml(text: str) -> list[Any]:
    """Every document that holds something: a safe load, with caps on size, depth and aliases checked before it."""
    if len(text) > MAX_CHARACTERS:
        raise UserError("E_RECIPE_SIZE", f"larger than {MAX_CHARACTERS:,} characters", where="recipe")
    try:
        _check_shape(yaml.parse(text, Loader=yaml.SafeLoader))
        documents = yaml.load_all(text, Loader=_NoDuplicates)  # derived from SafeLoader
        return [document for document in documents if document is not None]
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
    total = documents = 0
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
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if documents > MAX_DOCUMENTS:
            raise UserError("E_RECIPE_SIZE", f"holds more than {MAX_DOCUMENTS} documents", where="recipe")
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
