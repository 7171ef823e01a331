"""What the live worker does with a request: finds the family it is about, merges, asks models."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eval.judging.judges import judge
from eval.running.chat import BESIDE, ChatEvent, Decoding, Routing, check_question, converse
from merging.checkpoint import Checkpoint
from merging.device import Shares, choose_device, divide, merges_on
from merging.errors import UserError
from merging.events import Notice
from merging.fit import Fit, fit
from merging.folded import Folded
from merging.live import LiveMerge
from merging.live_events import LiveEvent
from merging.plan import Plan, make_plan, open_models
from merging.resident import limits, stored_bytes

if TYPE_CHECKING:
    from eval.calibrating.answer_router import Fits
    from eval.running.models import Models
    from eval.running.smile import Triplets
    from eval.running.sources import Source
    from eval.scoring.health import Health
    from eval.scoring.why import Without
    from eval.worker import Ask, Examine, FitOutputs, Move, Sources, Why

_GLANCE = 0.02  # seconds between two looks at what a move has found
_READ = 10  # probes of each H that a health check reads
_FAMILIES = 3  # kept ready; the least recently used goes


@dataclass(frozen=True, eq=False)
class Family:
    """Opened models and their live merge, which takes one call at a time."""

    models: dict[str, Checkpoint]  # "base", then the experts by name
    live: LiveMerge
    busy: Lock = field(default_factory=Lock)
    fits: "Fits" = field(default_factory=dict)

    def state(self, plan: Plan) -> Mapping[str, Tensor]:
        if (found := self.live.written(plan)) is not None:
            return found
        with self.busy:
            return self.live.state(plan)

    def triplets(self, k: int) -> "Triplets":
        with self.busy:
            return self.live.triplets(k)

    def folded(self, plan: Plan) -> Folded | None:
        """The merge by its folds; waits for a move under way until that knows them, or else the weights."""
        while (found := self.live.folded(plan)) is None and self.live.written(plan) is None:
            if self.busy.acquire(timeout=_GLANCE):
                self.busy.release()
                return self.live.folded(plan)
        return found


class Answering:
    """`move` and `answer` may run in two threads at a time; each of them in one only."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder  # where what was learnt of a family outlives the process
        self._device = choose_device("auto")
        self._families: OrderedDict[tuple[object, ...], Family] = OrderedDict()
        self._moved: Family | None = None  # by the latest move
        self._opening = Lock()
        self._models: Models | None = None
        self._loading = Lock()

    def move(
        self, move: "Move", cancelled: Callable[[], bool], rest: Callable[[], object] = lambda: None
    ) -> Iterator[LiveEvent]:
        family = self._moved = self._family(move.sources)
        plan = make_plan(move.recipe)
        torch.set_num_threads(1)  # matrices are computed side by side; LAPACK's results depend on its thread count
        with family.busy:
            yield from family.live.move(plan, move.focus, cancelled, outputs=move.outputs, rest=rest)

    def prepare(self, stopped: Callable[[], bool]) -> Iterator[str]:
        """While nobody asks for anything: what the latest move is likely to be followed by."""
        if self._moved:
            with self._moved.busy:
                yield from self._moved.live.prepare(stopped)

    def answer(self, request: "Ask | Examine | Why | FitOutputs", stopped: Callable[[], bool]) -> Iterator[object]:
        """What takes its time: most of it runs models."""
        from eval.worker import Ask, Examine, FitOutputs

        if isinstance(request, Ask):
            yield from self.ask(request, stopped)
        elif isinstance(request, Examine):
            yield from self.examine(request, stopped)
        elif isinstance(request, FitOutputs):
            yield self.fit(request)
        else:
            yield from self.why(request, stopped)

    def fit(self, request: "FitOutputs") -> Fit:
        family = self._family(request.sources)
        with family.busy:
            return fit(
                request.what, request.recipe, lambda asked: family.live.outputs([make_plan(one) for one in asked])
            )

    def why(self, why: "Why", stopped: Callable[[], bool]) -> "Iterator[Without]":
        """The merge's own answer first, then one by one those of the merges that leave something out."""
        from eval.running.sources import Merged
        from eval.scoring.score import answers_of
        from eval.scoring.why import Without, variants

        asked = why.exam.asked
        probe = next(one for one in asked.probes if one.id == why.probe)
        plan, family = make_plan(why.recipe), self._family(why.sources)
        for what, variant in (("", plan), *variants(plan, why.names)):
            if stopped():
                return
            model = self.models().model(Merged(variant, partial(family.state, variant)))
            (text,) = answers_of(model, [probe])
            verdict = judge(probe, text, asked.templates)
            yield Without(what, text, verdict.passed, verdict.label)

    def examine(self, request: "Examine", stopped: Callable[[], bool]) -> "Iterator[Health]":
        """Nothing where it was stopped before the last model."""
        from eval.running.sources import Merged
        from eval.scoring.health import chosen, examine

        plan, family, models = make_plan(request.recipe), self._family(request.sources), self.models()
        merge = Merged(plan, partial(family.state, plan))
        sources: dict[str, Source] = {"merge": merge, "base": family.models["base"], **family.models}
        read = (
            (name, model)
            for group in models.room.groups(sources)
            if not stopped()
            for name, model in models.load(group).items()
        )
        found = examine(read, chosen(request.exam.asked.probes, _READ))
        if not stopped():
            yield found

    def ask(self, ask: "Ask", stopped: Callable[[], bool]) -> Iterator[ChatEvent]:
        """Models that do not fit into memory together answer one group after the other."""
        decoding = Decoding(ask.temperature, ask.max_new_tokens, ask.seed)
        check_question(ask.turns, decoding)
        models = self.models()
        sources = self._sources(ask)
        if "router" in ask.turns:
            routing = self._route(ask)
            yield routing
            sources["router"] = self._family(ask.sources).models[routing.choice]
        groups = models.room.groups(sources)
        if len(groups) > 1:
            yield Notice("These models do not fit into memory together, so they answer one after another.")
        for group in groups:
            if stopped():
                continue
            loaded = models.load(group)
            for name, model in loaded.items():
                if model.swapped:
                    yield Notice(f"{name} does not fit on the device: {model.swapped} of its layers are fetched from "
                                 "host memory for every token, so it answers slowly.")  # fmt: skip
            yield from converse(loaded, ask.turns, decoding, stopped, ask.sources.names)
        if "duo" in ask.turns and ask.pair and not stopped():
            from eval.running.duo import duo

            two = {name: sources[name] for name in (ask.pair.drafter, ask.pair.second) if name in sources}
            if len(two) < 2:
                raise UserError("E_DUO", "The two models of Duo are not all here.", do="Choose them again.")
            yield from duo("duo", models.load(two), ask.pair, ask.turns["duo"], decoding, stopped)

    def models(self) -> "Models":
        """Takes seconds the first time, so the worker calls it when it starts."""
        with self._loading:
            if self._models is None:
                # Seconds of transformers, which the first slider must not wait for.
                from eval.running.models import Models

                self._models = Models(memory=self._shares.chat)
            return self._models

    def _sources(self, ask: "Ask") -> dict[str, "Source"]:
        from eval.running.mixed import Mixed
        from eval.running.sources import Merged

        family = self._family(ask.sources)
        sources: dict[str, Source] = {}
        for name in ask.turns:
            if name == "merge" and ask.recipe is not None:
                plan = make_plan(ask.recipe)
                folded = family.folded(plan)
                sources[name] = Merged(plan, partial(family.state, plan), folded, family.live.written(plan) is not None)
            elif name in family.models:
                sources[name] = family.models[name]
            elif name == "mixture":
                experts = tuple(family.models[expert] for expert in ask.sources.names)
                matrices = tuple(matrix.name for matrix in family.live.family.matrices)
                sources[name] = Mixed(family.models["base"], experts, ask.mixing, matrices, family.triplets)
            elif name not in BESIDE:
                raise UserError("E_CHAT", f"There is no model called {name[:60]!r} here.")
        return sources

    def _route(self, ask: "Ask") -> Routing:
        from eval.calibrating.answer_router import files_of, route

        family, recipe = self._family(ask.sources), ask.recipe
        measured = recipe.folder / recipe.calibration if recipe and recipe.calibration else None
        base = self.models().model(family.models["base"])
        question, files = ask.turns["router"], files_of(measured) if ask.route_by == "prompts" else []
        experts = {name: family.models[name] for name in ask.sources.names}
        return route("router", base, experts, question, files, family.fits, family.triplets)

    def _family(self, sources: "Sources") -> Family:
        """By content: a model that was replaced in its folder makes another family."""
        opened = open_models((sources.base, *sources.experts), sources.base, stages=sources.stages)
        key = (sources, *(checkpoint.fingerprint for checkpoint in opened))
        with self._opening:
            if key not in self._families:
                base, *experts = opened
                models = {**dict(zip(sources.names, experts, strict=True)), "base": base}
                device = merges_on(self._device)
                whole, budget = limits(stored_bytes(base), None if device == "cpu" else self._shares.live)
                live = LiveMerge(base, experts, sources.names, self._folder, whole, budget, device)
                self._families[key] = Family(models, live)
            self._families.move_to_end(key)
            while not self._fits():
                self._families.popitem(last=False)
            return self._families[key]

    @cached_property
    def _shares(self) -> Shares:
        """On the CPU, where only chat asks, the first picture need not wait for what tells the memory."""
        from eval.running.runtime import free_memory

        return divide(free_memory(self._device))

    def _fits(self) -> bool:
        """Whether there is room for all families that are kept ready; for the latest there always is."""
        held = sum(family.live.n_bytes for family in self._families.values())
        too_large = merges_on(self._device) != "cpu" and held > self._shares.live
        return len(self._families) == 1 or not (len(self._families) > _FAMILIES or too_large)
