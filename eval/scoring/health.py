"""A look at a merge in seconds: how near it is to its sources, how it reads good answers, whether it still speaks.

Every model reads the same questions with the same good answer and, for the margin, a bad one; only the merge writes
a few answers of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.judging.judges import is_broken
from eval.judging.probes import H, Probe
from eval.scoring.stats import Difference, paired_difference

if TYPE_CHECKING:
    from eval.running.models import Model
    from eval.scoring.closeness import Closeness, Text

_SPOKEN = 4  # probes of each H that the merge answers
_ALARM = 3.0  # times the best source's perplexity
BROKEN = 0.1  # share of its own answers


@dataclass(frozen=True)
class Health:
    """Models by name, "merge" first. `near` leaves out a source that cuts words otherwise than the merge.

    perplexity: of the good answers. margins: see eval/scoring/margins.py, probe by probe in one order for all.
    """

    near: Mapping[str, "Closeness"]
    perplexity: Mapping[str, float]
    margins: Mapping[str, tuple[float, ...]]
    sides: tuple[str, ...]
    clusters: tuple[str, ...]
    broken: int
    spoken: int

    @property
    def alarms(self) -> list[str]:
        """What says that the merge is broken; nothing where it is sound."""
        sources = [value for model, value in self.perplexity.items() if model != "merge"]
        found = []
        if sources and not self.perplexity["merge"] <= _ALARM * min(sources):  # a NaN is no number to be under
            found.append(f"It finds good answers more than {_ALARM:g} times as surprising as the best source does.")
        if self.broken > BROKEN * self.spoken:
            found.append(f"{self.broken} of {self.spoken} of its answers are broken.")
        return found

    def margin(self, h: str, model: str) -> float:
        """Mean over the probes of one H."""
        found = [value for side, value in zip(self.sides, self.margins[model], strict=True) if side == h]
        return sum(found) / len(found)

    def likelier(self, h: str, model: str) -> tuple[int, int]:
        """Of how many probes of one H the good answer is the likelier one, and how many there are."""
        found = [value > 0 for side, value in zip(self.sides, self.margins[model], strict=True) if side == h]
        return sum(found), len(found)

    def ahead(self, h: str, source: str) -> Difference:
        """The merge's margin minus a source's on one H, paired."""
        at = [i for i, side in enumerate(self.sides) if side == h]
        mine, theirs = ([self.margins[model][i] for i in at] for model in ("merge", source))
        return paired_difference(mine, theirs, [self.clusters[i] for i in at])


def chosen(probes: Sequence[Probe], each: int) -> list[Probe]:
    """The first few of every H that have a good and a bad answer, evenly over its categories."""
    found: list[Probe] = []
    for h in H:
        mine = [probe for probe in probes if probe.h == h and probe.gold_pass and probe.gold_fail]
        turns = [[probe for probe in mine if probe.category == one] for one in dict.fromkeys(p.category for p in mine)]
        rounds = [line[i] for i in range(max(map(len, turns), default=0)) for line in turns if i < len(line)]
        found += rounds[:each]
    return found


def examine(models: Iterable[tuple[str, "Model"]], probes: Sequence[Probe]) -> Health:
    """Models one after the other, the merge first: of the others nothing stays in memory but what was measured."""
    from eval.running.runtime import answer_batch
    from eval.scoring.closeness import closeness, log_probs, perplexity, targets
    from eval.scoring.margins import margin

    near: dict[str, Closeness] = {}
    surprise: dict[str, float] = {}
    margins: dict[str, tuple[float, ...]] = {}
    broken, spoken, own, read = 0, 0, None, ()
    for name, model in models:
        texts = _texts(model, probes)
        logs = log_probs(model.module, texts)
        surprise[name] = perplexity(logs, targets(texts))
        margins[name] = tuple(margin(model, probe).by for probe in probes)
        if name == "merge":
            own, read = logs, texts
            asked = chosen([probe for probe in probes if probe.choice is None], _SPOKEN)
            answers = answer_batch(model.module, model.tokenizer, [probe.conversation() for probe in asked])
            broken, spoken = sum(map(is_broken, answers)), len(answers)
        elif own is not None and texts == read:
            near[name] = closeness(own, logs)
    sides, clusters = tuple(probe.h for probe in probes), tuple(probe.cluster for probe in probes)
    return Health(near, surprise, margins, sides, clusters, broken, spoken)


def _texts(model: "Model", probes: Sequence[Probe]) -> "tuple[Text, ...]":
    """Each question with its good answer, of which the answer counts."""
    from eval.running.likelihood import written
    from eval.running.runtime import encode, render
    from eval.scoring.closeness import Text

    found = []
    for probe in probes:
        prompt, plain = render(model.tokenizer, probe.conversation())
        ids = encode(model.tokenizer, prompt, plain)
        reply = encode(model.tokenizer, written(model.tokenizer, probe.conversation(), probe.gold_pass[0]), False)
        found.append(Text((*ids, *reply), len(ids)))
    return tuple(found)
