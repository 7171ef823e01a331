"""What a search on the page has found so far, read back from its job's log. Knows nothing of Gradio."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from eval.scoring.stats import Difference
from eval.scoring.tries import scores_of
from eval.searching.aims import Aim
from eval.searching.events import Done, Finalist, Tried
from eval.searching.plots import Shown, shown
from ui.panels.status import Busy


@dataclass(frozen=True)
class Found:
    """`rungs`: the ladder's names, the unseen probes last. `experts`: as the screen calls them."""

    sampler: str
    experts: tuple[str, ...]
    rungs: tuple[str, ...] = ()
    trials: int | None = None
    tried: tuple[Tried, ...] = ()
    finalists: tuple[Finalist, ...] = ()
    done: Done | None = None
    aim: Aim = "both"

    @property
    def tries(self) -> list[Shown]:
        return shown(self.tried, self.rungs[-1]) if self.rungs else []

    @property
    def best(self) -> int | None:
        """The number of the finalist that won; None before the end."""
        return self.done.best if self.done else None

    def recipe(self, number: int) -> str | None:
        return next((one.recipe for one in self.tried if one.number == number), None)

    def busy(self) -> Busy:
        """How far it is, for the status line."""
        if not self.tried:
            return Busy("Searching", "the first try", 0.0)
        last, first = self.tried[-1], self.rungs[0]
        n = len({one.number for one in self.tried})
        if last.rung != first:
            return Busy("Searching", f"{n} tries, the best on more probes", 1.0, last.seconds_left)
        said = f"try {n}" if self.trials is None else f"try {n} of {self.trials}"
        return Busy("Searching", said, n / self.trials if self.trials else 0.0, last.seconds_left)


def with_event(found: Found, raw: Mapping[str, Any]) -> Found:
    """After one line of the log."""
    kind, said = raw.get("event"), {key: value for key, value in raw.items() if key != "event"}
    if kind == "begun":
        return replace(found, rungs=tuple(rung["name"] for rung in said["ladder"]), trials=said["trials"],
                       aim=said.get("aim", "both"))  # fmt: skip
    if kind == "tried":
        one = Tried(**{**said, "scores": said["scores"] and scores_of(said["scores"])})
        return replace(found, tried=(*found.tried, one))
    if kind == "finalist":
        against = said["against"] and Difference(**said["against"])
        seen, unseen = scores_of(said["seen"]), scores_of(said["unseen"])
        one = Finalist(said["number"], said["recipe"], seen, unseen, against)
        return replace(found, finalists=(*found.finalists, one))
    return replace(found, done=Done(**said)) if kind == "done" else found
