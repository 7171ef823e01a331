"""Names and values from outside as short, harmless words for messages."""

import difflib
from collections.abc import Collection


def shown(value: object, limit: int = 60) -> str:
    """A value from outside as one short printable piece of text."""
    if isinstance(value, (list, tuple, dict, set)):
        return f"a {'list' if isinstance(value, tuple) else type(value).__name__} of {len(value)}"
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def some(names: list[str], limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(name)[1:-1] for name in names[:limit]) + rest


def nearest(word: str, known: Collection[str]) -> str:
    """`Did you mean X?`, or nothing when no known name is near."""
    close = nearest_name(word, known)
    return f"Did you mean `{close}`?" if close else ""


def nearest_name(word: str, known: Collection[str]) -> str:
    """The known name that is near this word, or nothing."""
    return next(iter(difflib.get_close_matches(word, known, 1, 0.6)), "")


def reason(error: ValueError | OSError) -> str:
    """Why a file could not be used, as its error says it."""
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)


def count(items: Collection[object], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def first_names(names: list[str]) -> str:
    return ", ".join(f"`{name[:80]}`" for name in names[:3]) + (", …" if len(names) > 3 else "")


def large(n: int) -> str:
    """A number of parameters in three digits: 1.34 M."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n >= unit:
            return f"{n / unit:.3g} {letter}"
    return str(n)
