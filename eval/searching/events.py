"""What a search reports while it runs: typed, small, and one JSON object each on the command line."""

from dataclasses import dataclass
from typing import Literal

from eval.judging.probes import Split
from eval.scoring.board import Scores
from eval.scoring.stats import Difference
from eval.searching.aims import Aim
from eval.searching.space import Point


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: which probes, how they are read, and how many of the rung below get here."""

    name: str
    probes: str
    split: Split
    n_probes: int
    by: Literal["answers", "likelihood"] = "answers"
    share: float = 1.0
    most: int = 10_000


@dataclass(frozen=True)
class Begun:
    dials: tuple[str, ...]
    ladder: tuple[Rung, ...]
    trials: int | None
    minutes: float | None
    aim: Aim = "both"


@dataclass(frozen=True)
class Tried:
    """One point on one rung. `scores` is None where it is no merge, which `problem` then says."""

    number: int
    rung: str
    point: Point
    recipe: str
    scores: Scores | None
    seconds_left: float | None
    problem: str = ""


@dataclass(frozen=True)
class Promoted:
    """The best tries go on to the next rung."""

    rung: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Finalist:
    """`seen`: on the probes that it was chosen by; `unseen`: on those that nothing was chosen by. `against`: its share
    passed there, of harmless probes alone where that is the aim, minus that of the recipe the search began with; None
    for that recipe itself.
    """

    number: int
    recipe: str
    seen: Scores
    unseen: Scores
    against: Difference | None


@dataclass(frozen=True)
class Done:
    """`luck`: by how much the best of so many tries looks better than it is, in shares, were all equally good."""

    best: int
    recipe: str
    tries: int
    luck: float
    seconds: float

    def words(self) -> str:
        return (
            f"The winner's curse: the best of {self.tries} equally good tries looks about {100 * self.luck:.1f} points "
            "better than it is. Report the scores on unseen probes."
        )
