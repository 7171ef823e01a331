"""Scores models on probes: asks in batches, keeps every answer, judges by the probes' own rules."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from eval.judging.judges import Verdict, judge
from eval.judging.probes import Exam, H, Probe, ProbeSet, Split, even_part, load_probes
from eval.running.chat import Mixing
from eval.running.identity import identity
from eval.running.mixed import Mixed, mixture_of
from eval.scoring.board import Scores, summarise
from eval.scoring.runs import Run, answers, begin, find, finish, keep
from merging.checkpoint import Checkpoint
from merging.device import choose_device, merges_on
from merging.errors import UserError
from merging.events import Notice
from merging.models import open_model
from merging.plan import Plan, make_plan
from merging.recipe import Expert, load_recipe
from merging.sources import spelled_out
from merging.view import stored

if TYPE_CHECKING:
    from eval.running.models import Model


@dataclass(frozen=True)
class Asked:
    """How far one model is; `seconds_left` is for this model, None before the first batch."""

    model: str
    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class Answer:
    probe_id: str
    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Scored:
    model: str
    scores: Scores
    answers: tuple[Answer, ...]


Scorable = Checkpoint | Plan | Mixed
ScoreEvent = Asked | Scored


def score(
    model_or_recipe: str,
    probes: str = "town",
    split: Split = "test",
    device: str = "auto",
    sources: bool = False,
    run_code: bool = False,
    router: str = "",
    mixing: Mixing | None = None,
) -> Iterator[ScoreEvent | Notice]:
    """Scores a folder, or the merge of a recipe file; with `sources` then also the recipe's base and experts.

    A model that was scored before is answered from `runs.db`. The recipe's merge is never written. `run_code`
    runs code that the model wrote: only where the user asks for it. `router` names texts of the experts
    (`eval/calibrating/texts.py`): with sources, last comes the score of answers that each came whole from one expert.
    `mixing`: also SMILE's mixture of the recipe's experts, token by token.
    """
    models: dict[str, Scorable] = {**opened_with(model_or_recipe, sources)}
    if mixing is not None:
        plan = models.get("merge")
        if not isinstance(plan, Plan):
            raise UserError("E_USAGE", "--mixture needs a recipe file: it mixes the recipe's experts.")
        models["mixture"] = mixed = mixture_of(plan, mixing)
        yield Notice(mixed.words())
    asked = load_probes(probes, split)
    loader = Loader(choose_device(device).type)
    if router and not sources:
        raise UserError("E_USAGE", "--router needs --sources: it picks among the experts' answers.")
    scored: dict[str, Scored] = {}
    for name, model in models.items():
        for event in score_model(name, model, asked, loader, run_code):
            if isinstance(event, Scored):
                scored[name] = event
            yield event
    if router:
        yield routed(models, scored, asked, loader, router, run_code)


def routed(
    models: Mapping[str, Scorable],
    scored: Mapping[str, Scored],
    asked: ProbeSet,
    loader: "Loader",
    texts: str,
    run_code: bool,
) -> Scored:
    """The score of answers that each came whole from one expert, which a router chose by the question."""
    from eval.calibrating.router import fit_router
    from eval.calibrating.texts import ROUTED, read_for

    sources = {name: model for name, model in models.items() if isinstance(model, Checkpoint) and name != "base"}
    experts = list(sources)
    prompts = dict(zip(experts, read_for(texts, list(sources.values()), ROUTED), strict=True))
    router = fit_router(
        loader.model(models["base"]), {name: [text.question() for text in own] for name, own in prompts.items()}
    )
    routes = router.routes([probe.conversation() for probe in asked.probes])
    said = {name: {one.probe_id: one.text for one in scored[name].answers} for name in experts}
    taken = {probe.id: said[route.expert][probe.id] for probe, route in zip(asked.probes, routes, strict=True)}
    return _judged("router", asked, taken, run_code)


def score_model(
    name: str, model: Scorable, asked: ProbeSet, loader: "Loader", run_code: bool = False, n: int = 0
) -> Iterator[ScoreEvent]:
    """Scores one model, or the merge of a plan; ends with `Scored`. With `n` on an even part of the probes, whose
    answers are kept for the whole.
    """
    run = _run(name, model, asked, loader.device)
    kept = begin(run)
    part = 0 < n < len(asked.probes)
    asked = asked.model_copy(update={"probes": even_part(asked.probes, n)}) if part else asked
    todo = sorted(
        (probe for probe in asked.probes if probe.id not in kept),
        key=lambda probe: (_way(probe), sum(len(message.content) for message in probe.messages)),
    )
    total = len(asked.probes)
    yield Asked(name, total - len(todo), total, None if todo else 0.0)
    size = _batch_size(model)
    began = perf_counter()
    for at in range(0, len(todo), size):
        batch = todo[at : at + size]
        texts = loader.answers(model, batch)
        keep(run.key, {probe.id: text for probe, text in zip(batch, texts, strict=True)})
        done = at + len(batch)
        yield Asked(name, total - len(todo) + done, total, (perf_counter() - began) / done * (len(todo) - done))
    scored = _judged(name, asked, answers(run.key), run_code)  # of two runs at once, the answers that stayed
    if not part:
        finish(run.key, asdict(scored.scores), {one.probe_id: one.verdict.outcome for one in scored.answers})
    yield scored


def _judged(name: str, asked: ProbeSet, texts: Mapping[str, str], run_code: bool) -> Scored:
    verdicts = [judge(probe, texts[probe.id], asked.templates, texts, run_code) for probe in asked.probes]
    pairs = zip(asked.probes, verdicts, strict=True)
    scores = summarise(asked.probes, verdicts, asked.weighted)
    return Scored(name, scores, tuple(Answer(probe.id, texts[probe.id], verdict) for probe, verdict in pairs))


def opened(model_or_recipe: str) -> Checkpoint | Plan:
    """A model's folder, or the merge of a recipe file; no weight is read."""
    if Path(model_or_recipe).suffix in (".yml", ".yaml"):
        return make_plan(load_recipe(Path(model_or_recipe)))
    return open_model(model_or_recipe, Path())


def recall(plan: Plan, exam: Exam, device: str = "auto") -> list[Scored]:
    """What `score` with `sources` found for exactly this merge, without a question asked; nothing where a model was not
    asked every probe.
    """
    asked, place = exam.asked, choose_device(device).type
    found: list[Scored] = []
    for name, model in _with_sources(plan).items():
        run = find(_run(name, model, asked, place).key)
        if run is None or run.scores is None:
            return []
        found.append(_judged(name, asked, answers(run.key), False))
    return found


def kept_scores(plan: Plan, device: str = "auto") -> dict[str, tuple[float, float, float, int]] | None:
    """Scores of exactly this merge that an earlier run kept, from as many probes as were asked: by H the share passed,
    its interval and the number of probes. None where it was not scored.
    """
    place = choose_device(device).type
    for exam in (Exam("standard"), Exam("quick"), Exam("town"), Exam("town", "validation"), Exam("town", "screen")):
        with suppress(UserError):  # an export needs no scores
            run = find(_run("merge", plan, exam.asked, place).key)
            if run is not None and run.scores is not None:
                sides = {h: run.scores[h] for h in H}
                return {h: (side["score"], side["low"], side["high"], side["n"]) for h, side in sides.items()}
    return None


def _run(name: str, model: Scorable, asked: ProbeSet, place: str) -> Run:
    about: dict[str, object] = {
        "probes": asked.name,
        "version": asked.version,
        "split": " ".join(sorted({probe.split for probe in asked.probes})),
        "n": len(asked.probes),
        "hash": asked.digest,
        "decoding": "greedy",
        "device": place,
    }
    key = hashlib.sha256(json.dumps([identity(model), about]).encode()).hexdigest()
    if not isinstance(model, Plan):
        return Run(key, name, "", "", about)
    about |= {"digest": model.digest, "experts": sorted({stored(expert).fingerprint for expert in model.experts})}
    return Run(key, name, stored(model.base).fingerprint, spelled_out(model.recipe).to_yaml(), about)


class Loader:
    """Loads a model when it is first asked, which a run answered from the data folder never does; for one thread."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._models = None

    def model(self, model: Scorable) -> "Model":
        from eval.running.models import Models  # seconds of transformers
        from eval.running.sources import Merged
        from merging.engine import merged_tensors

        self._models = self._models or Models(self.device)
        if not isinstance(model, Plan):
            return self._models.model(model)
        device = merges_on(self._models.device)
        return self._models.model(Merged(model, lambda: dict(merged_tensors(model, device=device))))

    def answers(self, model: Scorable, probes: list[Probe]) -> list[str]:
        return answers_of(self.model(model), probes)


def answers_of(model: "Model", probes: Sequence[Probe]) -> list[str]:
    """What a model in memory says to each probe, asked as the probe wants."""
    from eval.running.likelihood import pick
    from eval.running.runtime import answer_batch

    found: dict[str, str] = {}
    for (by_likelihood, most), group in groupby(probes, key=_way):
        same_way = list(group)
        if by_likelihood:
            found |= {probe.id: pick(model.module, model.tokenizer, probe) for probe in same_way}
        else:
            conversations = [probe.conversation() for probe in same_way]
            texts = answer_batch(model.module, model.tokenizer, conversations, max_new_tokens=most)
            found |= {probe.id: text for probe, text in zip(same_way, texts, strict=True)}
    return [found[probe.id] for probe in probes]


def _way(probe: Probe) -> tuple[bool, int]:
    """Probes that are answered together: by likelihood or in so many tokens."""
    return probe.choice is not None, probe.max_new_tokens


def opened_with(model_or_recipe: str, sources: bool) -> Mapping[str, Checkpoint | Plan]:
    """By name as shown, the merge first; with `sources` then the recipe's base and experts."""
    plan = opened(model_or_recipe)
    if not isinstance(plan, Plan):
        if sources:
            raise UserError("E_USAGE", "--sources needs a recipe file.", where=model_or_recipe)
        return {plan.folder.name: plan}
    return _with_sources(plan) if sources else {"merge": plan}


def _with_sources(plan: Plan) -> dict[str, Checkpoint | Plan]:
    base = stored(plan.base)  # sources answer as they lie in their folders, with their own tokenizers
    experts = {model.fingerprint: model for model in map(stored, plan.experts) if model.fingerprint != base.fingerprint}
    names = [Expert(expert.source).name for expert in experts.values()]
    taken = ["merge", "base", *names]
    shown = [f"{name} {i}" if taken.count(name) > 1 else name for i, name in enumerate(names, 1)]
    return {"merge": plan, "base": base, **dict(zip(shown, experts.values(), strict=True))}


def _batch_size(model: Scorable) -> int:
    """Fixed by the model's size alone: a batch is what a killed run loses, and what a progress bar moves by."""
    tensors = (model if isinstance(model, Checkpoint) else model.base).tensors
    n_parameters = sum(prod(info.shape) for info in tensors.values())
    return 100 if n_parameters < 50e6 else 25 if n_parameters < 1e9 else 8
