"""Probes without a word generated: what a merge would rather say. Cheap, for a first look at many merges; no score.

A choice is picked as ever. A probe that must or must not be refused passes by the sign of the refusal margin, any other
where its likeliest good answer is likelier, per byte, than its likeliest bad one.
"""

import hashlib
import json
import math
from collections.abc import Generator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from eval.judging.probes import Probe, ProbeSet
from eval.judging.rules import Refusal
from eval.running.identity import identity
from eval.scoring.runs import Run, begin, keep
from eval.scoring.score import Asked, Loader
from merging.plan import Plan

if TYPE_CHECKING:
    from eval.running.models import Model

_RANDOM = -math.log(256)  # of a byte drawn at random
_BATCH = 8


@dataclass(frozen=True)
class Margin:
    """`by`: how much rather the model gives a good answer. `likely`: log-likelihood of the likelier answer, a byte."""

    by: float
    likely: float

    @property
    def broken(self) -> bool:
        """Whether bytes drawn at random predict the answers better."""
        return not (math.isfinite(self.by) and self.likely > _RANDOM)


def margins(plan: Plan, asked: ProbeSet, loader: Loader) -> Generator[Asked, None, dict[str, Margin]]:
    """Of a merge on these probes, by their ids; each batch is kept, so that no probe is asked twice."""
    about = {"probes": asked.name, "decoding": "likelihood, as written by the template", "device": loader.device}
    key = hashlib.sha256(json.dumps([identity(plan), asked.digest, about]).encode()).hexdigest()
    known = begin(Run(key, "merge", "", "", about))  # of no family: nothing was answered, so it is no try of the board
    todo = [probe for probe in asked.probes if probe.id not in known]
    total, start = len(asked.probes), perf_counter()
    yield Asked("merge", total - len(todo), total, None if todo else 0.0)
    for at in range(0, len(todo), _BATCH):
        batch = todo[at : at + _BATCH]
        model = loader.model(plan)
        found = {probe.id: margin(model, probe) for probe in batch}
        texts = {id: json.dumps([one.by, one.likely]) for id, one in found.items()}
        keep(key, texts)
        known |= texts
        done = at + len(batch)
        yield Asked("merge", total - len(todo) + done, total, (perf_counter() - start) / done * (len(todo) - done))
    return {probe.id: Margin(*json.loads(known[probe.id])) for probe in asked.probes}


def margin(model: "Model", probe: Probe) -> Margin:
    """Raises ValueError where a probe has no good or no bad answer to compare."""
    from eval.running.likelihood import log_likelihoods, pick, refusal_margin

    module, tokenizer, messages = model.module, model.tokenizer, probe.conversation()
    replies = (*probe.gold_pass, *probe.gold_fail)
    found = log_likelihoods(module, tokenizer, messages, replies)
    each = [value / len(reply.encode()) for value, reply in zip(found, replies, strict=True)]
    good, bad = each[: len(probe.gold_pass)], each[len(probe.gold_pass) :]
    by = max(good) - max(bad)
    if choice := probe.choice:
        by = 1.0 if pick(module, tokenizer, probe) == choice.choices[choice.answer] else -1.0
    elif refusal := next((rule for rule in probe.score if isinstance(rule, Refusal)), None):
        by = refusal_margin(module, tokenizer, messages) * (1 if refusal.expect else -1)
    return Margin(by, max(each))
