"""Scores on screen: what a scoring job reported, by model. Belongs to one digest and one exam."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from eval.judging.probes import Exam, Probe
from eval.scoring.board import Scores
from eval.scoring.tries import scores_of

T = TypeVar("T")


@dataclass(frozen=True)
class Exams:
    """The probes that a family is asked. first: for a first look; full: what reports are made of; read: of its good
    answers a health check reads some. effort: what the first look takes, in words.
    """

    name: str
    first: Exam
    full: Exam
    read: Exam
    effort: str


TOWN = Exams("Town", Exam("town", "screen"), Exam("town"), Exam("town", "validation"), "about 10 s for Town")
STANDARD = Exams("standard", Exam("quick"), Exam("standard"), Exam("standard"), "minutes a model without a GPU")


@dataclass(frozen=True)
class Said:
    text: str
    passed: bool
    label: str
    outcome: str


APART = ("router", "mixture")  # what `score` calls those that keep the experts apart instead of merging them


@dataclass(frozen=True)
class Apart:
    scores: Scores
    outcomes: Mapping[str, str]  # by probe id


@dataclass(frozen=True)
class Scoreboard:
    exam: Exam
    scores: Mapping[str, Scores] = field(default_factory=dict)  # merge first, then base and experts
    answers: Mapping[str, Mapping[str, Said]] = field(default_factory=dict)  # model -> probe id -> answer
    apart: Mapping[str, Apart] = field(default_factory=dict)

    @property
    def outcomes(self) -> dict[str, dict[str, str]]:
        """Model -> probe id -> pass, fail, abstain, refuse or broken."""
        return {model: {id: said.outcome for id, said in found.items()} for model, found in self.answers.items()}


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
    model, scores = event["model"], scores_of(event["scores"])
    verdicts = {answer["probe_id"]: (answer["text"], answer["verdict"]) for answer in event["answers"]}
    if model in APART:
        outcomes = {id: verdict["outcome"] for id, (_, verdict) in verdicts.items()}
        return replace(board, apart={**board.apart, model: Apart(scores, outcomes)})
    said = {id: Said(text, v["passed"], v["label"], v["outcome"]) for id, (text, v) in verdicts.items()}
    return replace(board, scores={**board.scores, model: scores}, answers={**board.answers, model: said})


def lost(board: Scoreboard) -> list[Lost]:
    """Every probe that the merge fails and a source passes; the expert of the probe's own H speaks for the sources.

    The three H take turns, and so do the kinds inside each, so that the first few show all that was lost.
    """
    merge = board.answers.get("merge", {})
    sources = [name for name in board.answers if name != "merge"]
    found = []
    for probe in board.exam.asked.probes:
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
