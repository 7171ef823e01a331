"""What was computed of one matrix, so that a slider move repeats only what it made stale."""

from collections.abc import Callable, Hashable, Mapping
from threading import RLock
from typing import Any

MOST = 24  # results kept of a kind: a few slider positions of three experts


class Memo:
    """Results by key. Of each kind (a key's first part) the latest used are kept: `most` of it, else MOST."""

    def __init__(self, most: Mapping[Hashable, int] | None = None) -> None:
        self._most = most or {}
        self._kinds: dict[Hashable, dict[Hashable, Any]] = {}
        self.lock = RLock()  # one matrix is worked on by one thread at a time; different matrices run side by side

    def remember(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, or what it gave before."""
        with self.lock:
            found = self.get(key)
            return self.put(key, make() if found is None else found)

    def get(self, key: Hashable) -> Any:
        """None where it is not there."""
        return self._kinds.get(_kind(key), {}).get(key)

    def put(self, key: Hashable, value: Any) -> Any:
        """`value`, as the latest used of its kind."""
        kind = _kind(key)
        with self.lock:
            found = self._kinds.setdefault(kind, {})
            found.pop(key, None)
            found[key] = value
            self.trim(kind, self._most.get(kind, MOST))
        return value

    def trim(self, kind: Hashable, most: int) -> None:
        """Let go all but the latest used of a kind."""
        found = self._kinds.get(kind, {})
        while len(found) > most:
            del found[next(iter(found))]

    def count(self, kind: Hashable) -> int:
        return len(self._kinds.get(kind, {}))


def _kind(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) else key
