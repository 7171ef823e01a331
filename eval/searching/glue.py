"""Model-GLUE's merge of many experts: clusters by delta cosine, grown by score, then merged by the recipe's method."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.scoring.score import Asked
from eval.searching.events import Rung
from eval.searching.scoring import ladder, merge_scores, refuse_public
from eval.searching.search import Measure
from merging.glue import average, by_method, clusters, delta_cosines, glued, refuse_parts
from merging.methods import METHODS
from merging.plan import make_plan, members
from merging.recipe import Recipe, load_recipe
from merging.sources import spelled_out


@dataclass(frozen=True)
class Grouped:
    """Expert names by cluster, and the cosine of each pair."""

    clusters: tuple[tuple[str, ...], ...]
    cosines: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True)
class Joined:
    """Whether an expert goes into the average of its cluster: the mean score of the average `before` and `after`."""

    expert: str
    kept: bool
    before: float
    after: float


@dataclass(frozen=True)
class Glued:
    """`to_measure`: its method merges by a calibration of the clusters, which is still to be made."""

    recipe: str
    left_out: tuple[str, ...]
    to_measure: bool = False


GlueEvent = Asked | Grouped | Joined | Glued


def glue(
    path: Path, least: float = 0.3, probes: str = "town", device: str = "auto", across: str = ""
) -> Iterator[GlueEvent]:
    """The staged recipe of a recipe file. least: cosine of clusters that become one. Without `probes` all members of a
    cluster are averaged and no model is asked. Answers are kept, so a stopped run goes on. across: the method that
    merges the clusters, at its defaults, in place of the recipe's.
    """
    recipe = spelled_out(load_recipe(path))
    recipe = by_method(recipe, across) if across else recipe
    refuse_parts(recipe)
    refuse_public(probes)
    rung = ladder(probes)[-2] if probes else None  # the last one that choices are made on
    yield from glue_by(recipe, least, rung, merge_scores(device))


def glue_by(recipe: Recipe, least: float, rung: Rung | None, measure: Measure) -> Iterator[GlueEvent]:
    names = [expert.name for expert in recipe.experts]
    measured_later = METHODS[recipe.method].calibrated if recipe.method in METHODS else None
    cosines = delta_cosines(make_plan(average(recipe, range(len(names))) if measured_later else recipe))
    found = clusters(cosines, least)
    pairs = tuple(
        (names[a], names[b], float(cosines[a, b])) for a in range(len(names)) for b in range(a + 1, len(names))
    )
    yield Grouped(tuple(tuple(names[t] for t in group) for group in found), pairs)
    groups: list[Sequence[int]] = []
    for group in found:
        groups.append((yield from _grow(recipe, group, rung, measure)) if rung and len(group) > 1 else group)
    made = glued(recipe, groups)
    if measured_later:  # on the clusters, once this recipe is there
        made = replace(made, calibration=None)
        members(made)
    else:
        make_plan(made)  # every problem before anything is written
    inside = {t for group in groups for t in group}
    yield Glued(made.to_yaml(), tuple(name for t, name in enumerate(names) if t not in inside), bool(measured_later))


def _grow(recipe: Recipe, group: Sequence[int], rung: Rung, measure: Measure) -> Generator[GlueEvent, None, list[int]]:
    """The best member, then each that does not make the average worse, the better ones first (greedy soup)."""

    def mean(members: Sequence[int]) -> Generator[GlueEvent, None, float]:
        found = yield from measure(average(recipe, members), rung)
        return found.scores.mean

    alone: dict[int, float] = {}
    for t in group:
        alone[t] = yield from mean([t])
    best, *others = sorted(group, key=lambda t: -alone[t])
    kept, before = [best], alone[best]
    for t in others:
        after = yield from mean([*kept, t])
        yield Joined(recipe.experts[t].name, after >= before, before, after)
        if after >= before:
            kept, before = [*kept, t], after
    return kept
