"""Merges that were tried over one base, as `runs.db` keeps them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from eval.judging.probes import H, ProbeSet
from eval.scoring.board import HScore, Scores
from eval.scoring.runs import tried
from eval.scoring.stats import luck_of_the_best


@dataclass(frozen=True)
class Try:
    """A scored merge. `recipe` is YAML with absolute folders, `outcomes` are by probe id, `began` is UTC."""

    key: str
    digest: str
    recipe: str
    began: str
    scores: Scores
    outcomes: Mapping[str, str]


def tries(base: str, experts: Collection[str], asked: ProbeSet) -> list[Try]:
    """Of the merges of these models, by fingerprints, or of some of them: those asked exactly these probes, the first
    first; the last run where one merge has several.
    """
    found: dict[str, Try] = {}
    for run in tried(base):
        if run.about["hash"] != asked.digest or not set(run.about["experts"]) <= set(experts):
            continue
        assert run.scores is not None
        assert run.outcomes is not None
        digest = run.about["digest"]
        found.pop(digest, None)
        found[digest] = Try(run.key, digest, run.recipe, run.began, scores_of(run.scores), run.outcomes)
    return list(found.values())


def luck(found: Sequence[Try]) -> float:
    """By how much the best mean of so many equally good merges would look too good, 0..1."""
    best = max((one.scores for one in found), key=lambda scores: scores.mean)
    sides = [getattr(best, h) for h in H]
    error = sqrt(sum(side.score * (1 - side.score) / side.n for side in sides)) / len(sides)
    return luck_of_the_best(len(found)) * error


def scores_of(raw: Mapping) -> Scores:
    """From JSON."""
    return Scores(**{**raw, **{h: HScore(**raw[h]) for h in H}})
