"""Looks for a recipe's best settings: many tries on few probes, the best of them on more, the last on unseen ones.

Nothing of a search is kept but the scores, and these are (`runs.db`): its points follow from its seed and the scores
alone, so a search that was killed is gone through again to where it was, and no probe is asked twice.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

import numpy as np

from eval.scoring.board import Scores
from eval.scoring.compare import front
from eval.scoring.score import Asked
from eval.scoring.stats import Difference, luck_of_the_best, paired_difference
from eval.searching.aims import Aim, error, over, worth
from eval.searching.events import Begun, Done, Finalist, Promoted, Rung, Tried
from eval.searching.samplers import Proposals, Told
from eval.searching.space import Point, Space
from merging.errors import UserError
from merging.recipe import Recipe

# What a point may be that is no fault of the search: its weights sum to nothing, or leave no model.
NO_MERGE = ("E_WEIGHTS", "E_MODELS")


@dataclass(frozen=True)
class Measured:
    scores: Scores
    passed: Mapping[str, bool]  # by probe id


class Measure(Protocol):
    def __call__(self, recipe: Recipe, rung: Rung) -> Generator[Asked, None, Measured]:
        """Scores of one recipe. Raises UserError where it is no merge."""
        ...


SearchEvent = Begun | Asked | Tried | Promoted | Finalist | Done


def search(
    space: Space,
    measure: Measure,
    ladder: Sequence[Rung],
    proposals: Proposals,
    trials: int | None = 24,
    minutes: float | None = None,
    clusters: Mapping[str, str] | None = None,
    aim: Aim = "both",
) -> Iterator[SearchEvent]:
    """Climbs the ladder: every try on its first rung, the best on the next; its last rung is for reporting alone.

    minutes: about how long this run may take; tries whose scores are kept take no time. clusters: of those of the last
    rung's probes that finalists are compared on, by id; None compares on all. Try 0 is the recipe itself, and is always
    tested on unseen probes.
    """
    yield Begun(tuple(dial.name for dial in space.dials), tuple(ladder), trials, minutes, aim)
    run = _Run(space, measure, ladder, trials, minutes, aim)
    found = yield from run.explore(proposals)
    tries = len(found)
    for rung in ladder[1:-1]:
        found = yield from run.promote(found, rung)
    best = ranked({n: one.scores for n, one in found.items()}, aim)[: ladder[-1].most]
    unseen = yield from run.report(best, ladder[-1])
    for number in best:
        against = None if number == 0 else _against(unseen[number], unseen[0], clusters)
        yield Finalist(number, run.text(number), found[number].scores, unseen[number].scores, against)
    luck = luck_of_the_best(tries) * error(aim, found[best[0]].scores)
    by = "" if aim == "both" else f" by {aim}"
    recipe = run.text(best[0], f"Best of {tries} tries, chosen{by} on {' and '.join(map(_said, ladder[:-1]))}.")
    yield Done(best[0], recipe, tries, luck, perf_counter() - run.began)


@dataclass
class _Run:
    """One run up the ladder, and how long a probe takes on each rung: merging included, those kept from before not."""

    space: Space
    measure: Measure
    ladder: Sequence[Rung]
    trials: int | None
    minutes: float | None
    aim: Aim
    points: list[Point] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by the rung's name
    asked: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=perf_counter)

    def explore(self, proposals: Proposals) -> Generator[SearchEvent, None, dict[int, Measured]]:
        """The first rung: each point is proposed in the light of those before."""
        rung, found, told = self.ladder[0], dict[int, Measured](), None
        while (self.trials is None or len(self.points) < self.trials) and self._fits(rung, len(found) + 1):
            try:
                self.points.append(proposals.send(told) if self.points else next(proposals))
            except StopIteration:
                break
            number = len(self.points) - 1
            todo = 0 if self.trials is None else self.trials - len(self.points)
            result = yield from self._try(number, rung, todo)
            found |= {} if result is None else {number: result}
            told = None if result is None else self._told(result.scores, found[0].scores)
        return found

    def promote(
        self, below: Mapping[int, Measured], rung: Rung
    ) -> Generator[SearchEvent, None, Mapping[int, Measured]]:
        """The best of the rung below; as many of them as there is time for, one at least.

        The recipe that the search began with goes along where it says how much may be lost.
        """
        best = ranked({n: one.scores for n, one in below.items()}, self.aim)
        yield Promoted(rung.name, tuple(best := best[: _counts([rung], len(below))[rung.name]]))
        order = list(dict.fromkeys([*self._beside(rung), *best]))
        found: dict[int, Measured] = {}
        for i, number in enumerate(order, 1):
            if len(found) > len(self._beside(rung)) and not self._fits(rung, len(found) + 1):
                break
            result = yield from self._try(number, rung, len(order) - i)
            found |= {} if result is None else {number: result}
        return found

    def report(self, best: Sequence[int], rung: Rung) -> Generator[SearchEvent, None, dict[int, Measured]]:
        """The last rung, whatever the time: the finalists, and the recipe that the search began with."""
        yield Promoted(rung.name, tuple(best))
        found: dict[int, Measured] = {}
        numbers = list(dict.fromkeys([*self._beside(rung), *best]))
        for i, number in enumerate(numbers, 1):
            result = yield from self._try(number, rung, len(numbers) - i)
            assert result is not None, "it was scored on the rung below"
            found[number] = result
        return found

    def text(self, number: int, note: str = "") -> str:
        """The recipe of a try; its own note stays where nothing was turned."""
        recipe = self.space.recipe_at(self.points[number])
        return replace(recipe, note=recipe.note if number == 0 else note).to_yaml()

    def _try(self, number: int, rung: Rung, more: int) -> Generator[SearchEvent, None, Measured | None]:
        """`more`: how many are still to come on this rung."""
        result, problem, fresh, start = None, "", 0, perf_counter()
        events = self.measure(self.space.recipe_at(self.points[number]), rung)
        try:
            while True:
                event = next(events)
                fresh = max(fresh, event.total - event.done)
                yield event
        except StopIteration as end:
            result = end.value
        except UserError as error:
            if number == 0 or error.code not in NO_MERGE:
                raise
            problem = error.what
        if fresh:
            self.seconds[rung.name] = self.seconds.get(rung.name, 0.0) + perf_counter() - start
            self.asked[rung.name] = self.asked.get(rung.name, 0) + fresh
        scores = result and result.scores
        yield Tried(number, rung.name, self.points[number], self.text(number), scores, self._left(rung, more), problem)
        return result

    def _told(self, scores: Scores, start: Scores) -> Told:
        return Told(worth(self.aim, scores), over(self.aim, scores, start))

    def _beside(self, rung: Rung) -> tuple[int, ...]:
        """Who is on this rung to be compared with, however good."""
        return (0,) if rung is self.ladder[-1] or self.aim == "harmless" else ()

    def _cost(self, rung: Rung) -> float:
        """Seconds of one merge on this rung; where it is not known yet, by the probe as on the last that is."""
        known = rung.name if rung.name in self.asked else next(reversed(self.asked), None)
        return 0.0 if known is None else self.seconds[known] / self.asked[known] * rung.n_probes

    def _above(self, rung: Rung, tries: int) -> float:
        """Seconds of the rungs above this one, after so many tries on it."""
        above = self.ladder[self.ladder.index(rung) + 1 :]
        counts = _counts(above, tries)
        return sum((counts[each.name] + len(self._beside(each))) * self._cost(each) for each in above)

    def _fits(self, rung: Rung, tries: int) -> bool:
        """Whether one more merge on this rung leaves time for those above."""
        if self.minutes is None or tries == 1:
            return True
        return perf_counter() - self.began + self._cost(rung) + self._above(rung, tries) <= 60 * self.minutes

    def _left(self, rung: Rung, more: int) -> float | None:
        """Seconds to the end as far as it can be told: by what is to do, at most what the clock leaves."""
        if not self.asked:
            return None
        here = _counts(self.ladder, self.trials or len(self.points))[rung.name]
        todo = more * self._cost(rung) + self._above(rung, here)
        clock = math.inf if self.minutes is None else 60 * self.minutes - (perf_counter() - self.began)
        exploring = self.trials is None and rung is self.ladder[0]
        return max(0.0, clock if exploring else min(todo, clock))


def ranked(scores: Mapping[int, Scores], aim: Aim = "both") -> list[int]:
    """Numbers of tries, the best first: those that break no limit, then the front of what counts, then its sum.

    Try 0 is the recipe that the search began with; of equals that with the better mean and worst side comes first.
    """
    sides = {n: worth(aim, one) for n, one in scores.items()}
    holds = {n: over(aim, one, scores.get(0)) <= 0 for n, one in scores.items()}
    order: list[int] = []
    for allowed in (True, False):
        left = [n for n in scores if holds[n] == allowed]
        while left:
            on_front = front(np.array([sides[n] for n in left]))
            tier = [n for n, on in zip(left, on_front, strict=True) if on]
            order += sorted(tier, key=lambda n: (-sum(sides[n]), -scores[n].mean - scores[n].min, n))
            left = [n for n in left if n not in tier]
    return order


def _counts(ladder: Sequence[Rung], tries: int) -> dict[str, int]:
    """How many of the best each of these rungs sees, after so many tries on the one below them."""
    counts, n = {}, tries
    for rung in ladder:
        n = min(rung.most, math.ceil(rung.share * n))
        counts[rung.name] = n
    return counts


def _said(rung: Rung) -> str:
    split = f", {rung.split}" if rung.probes not in ("quick", "standard", "sealed") else ""
    return f"{rung.n_probes} probes ({rung.probes}{split})"


def _against(one: Measured, start: Measured, clusters: Mapping[str, str] | None) -> Difference:
    """Paired, of the shares passed."""
    each = {id: id for id in one.passed} if clusters is None else clusters
    passed, before = ([m.passed[id] for id in each] for m in (one, start))
    return paired_difference(passed, before, list(each.values()))
