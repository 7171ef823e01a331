"""Scores on screen: what a scoring job reported, by model. Belongs to one digest and one split of the probes."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from eval.board import HScore, Scores
from eval.probes import H, Probe, load_probes

T = TypeVar("T")
FIRST, MORE = "screen", "test"  # a first look, and the probes that reports are made of


@dataclass(frozen=True)
class Said:
    text: str
    passed: bool
    label: str


@dataclass(frozen=True)
class Scoreboard:
    split: str
    scores: Mapping[str, Scores] = field(default_factory=dict)  # merge first, then base and experts
    answers: Mapping[str, Mapping[str, Said]] = field(default_factory=dict)  # model -> probe id -> answer


@dataclass(frozen=True)
class Lost:
    """A source passes, the merge fails."""

    probe: Probe
    source: str
    source_says: str
    merge_says: str
    label: str


def with_scored(board: Scoreboard, event: Mapping[str, Any]) -> Scoreboard:
    """The board after one `scored` line of the job's log."""
    raw = event["scores"]
    scores = Scores(**{**raw, **{h: HScore(**raw[h]) for h in H}})
    said = {a["probe_id"]: Said(a["text"], a["verdict"]["passed"], a["verdict"]["label"]) for a in event["answers"]}
    return Scoreboard(board.split, {**board.scores, event["model"]: scores}, {**board.answers, event["model"]: said})


def lost(board: Scoreboard) -> list[Lost]:
    """Every probe that the merge fails and a source passes; the expert of the probe's own H speaks for the sources.

    The three H take turns, and so do the kinds inside each, so that the first few show all that was lost.
    """
    merge = board.answers.get("merge", {})
    sources = [name for name in board.answers if name != "merge"]
    found = []
    for probe in load_probes("town", board.split).probes:  # pyright: ignore[reportArgumentType]
        answer = merge.get(probe.id)
        if answer is None or answer.passed:
            continue
        ordered = sorted(sources, key=lambda name: (probe.h not in name.lower(), name == "base"))
        passing = next((name for name in ordered if board.answers[name][probe.id].passed), None)
        if passing:
            said = board.answers[passing][probe.id].text
            found.append(Lost(probe, passing, said, answer.text, answer.label))
    return spread(spread(found, lambda one: one.probe.category), lambda one: one.probe.h)


def spread(items: list[T], sort: Callable[[T], str]) -> list[T]:
    """The same items, one of each sort before the second of any; the order is kept otherwise."""
    seen = Counter[str]()
    turns = []
    for item in items:
        turns.append(seen[sort(item)])
        seen[sort(item)] += 1
    return [item for _, item in sorted(zip(turns, items, strict=True), key=lambda pair: pair[0])]
