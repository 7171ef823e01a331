"""The one error a user can mend: what is wrong, where, what was kept, what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Fix:
    """One change to the recipe that makes a problem go away; `merging.fixes` applies it.

    at: the place in the recipe as written: `("dtype",)`, `("models", 1, "parameters", "weight")`.
    value: what stands there afterwards ("set"), or the key's new name ("rename").
    instead: another change that would do as well.
    """

    label: str  # what a button says: "Use the base's vocabulary"
    action: Literal["set", "drop", "rename"]
    at: tuple[str | int, ...]
    value: Any = None
    instead: "Fix | None" = None


class UserError(Exception):
    """A problem the user can mend; shown as plain words, never as a traceback.

    `code` is stable for programs (`E_SHAPE_MISMATCH`); the other parts are sentences or names for people.
    """

    def __init__(
        self, code: str, what: str, *, where: str = "", kept: str = "", do: str = "", fix: Fix | None = None
    ) -> None:
        self.code, self.what, self.where, self.kept, self.do = code, what, where, kept, do
        self.fix = fix
        self.parts: tuple[UserError, ...] = ()  # of an error that lists several
        super().__init__(code, what, where, kept, do)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return " ".join(_sentence(part) for part in (f"{place}{self.what}", self.kept, self.do) if part)

    def __reduce__(self) -> tuple:  # crosses process borders with its parts intact
        return _rebuild, (self.code, self.what, self.where, self.kept, self.do), {"parts": self.parts, "fix": self.fix}

    def to_dict(self) -> dict[str, Any]:
        told = {"code": self.code, "what": self.what, "where": self.where, "kept": self.kept, "do": self.do}
        if self.fix is None:
            return told
        fix = asdict(self.fix)
        return told | {"fix": fix if fix["instead"] else {k: v for k, v in fix.items() if k != "instead"}}


def _rebuild(code: str, what: str, where: str, kept: str, do: str) -> UserError:
    return UserError(code, what, where=where, kept=kept, do=do)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "\n")) else f"{text}."


def all_of(problems: Sequence[UserError], *, kept: str = "Nothing was written.") -> UserError:
    """One error that lists every problem; a single problem stays itself, and a list among them is spelled out."""
    problems = [part for problem in problems for part in problem.parts or (problem,)]
    if len(problems) == 1:
        only = problems[0]
        return UserError(only.code, only.what, where=only.where, kept=only.kept or kept, do=only.do, fix=only.fix)
    lines = [f"{i}. {problem}" for i, problem in enumerate(problems, 1)]
    error = UserError("E_PROBLEMS", f"{len(problems)} problems:\n" + "\n".join(lines) + "\n", kept=kept)
    error.parts = tuple(problems)
    return error


def placed(problem: UserError, place: str) -> UserError:
    """The problem in one document among several: `place` before its own, in every part, and no fix; itself for ""."""
    if not place:
        return problem
    where = ", ".join(part for part in (place, problem.where) if part)
    found = UserError(problem.code, problem.what, where=where, kept=problem.kept, do=problem.do)
    found.parts = tuple(placed(part, place) for part in problem.parts)
    return found
