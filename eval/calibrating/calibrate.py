"""Measures what the experts' matrices read, for the methods that merge by it (`merging/calibration.py`).

It goes layer by layer: the Gram matrices of one layer and one expert are summed, written to disk and forgotten
(`kept.py`). What a layer reads comes from the layers before it. Those are the expert's own, or for RegMean++ the
merge's: then a layer is merged as soon as all experts are measured on it, and all texts go on through the merged layer.
The gains of that merge's parts are learned last (`gains.py`).

The cost: with the experts' own layers every text is read once; with the merge's twice, the first time without the last
matrix of each layer; the base's columns take one reading more. For the rest see `benchmarks/calibration.md`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from eval.calibrating.gains import Gains, learn, parts_of, steps_for
from eval.calibrating.gradients import gradients
from eval.calibrating.kept import Kept, begin
from eval.calibrating.picking import picked
from eval.calibrating.steps import Calibrating, Steps
from eval.calibrating.texts import answer, answer_start, most_read, read_for, token_ids
from eval.running.layers import Batch, Grams, Layers, batches, finish_all, measure, start_all, through
from eval.running.models import Models
from eval.running.runtime import use_cores
from merging.calibration import BASE, COUNTS, ENDS, GAINS, GRADIENTS, HEAD, Calibration, Stream
from merging.checkpoint import Checkpoint
from merging.engine import one_thread_a_matrix
from merging.errors import UserError
from merging.partial import refuse_existing
from merging.pieces import merged_tensor
from merging.plan import Plan, make_plan, members
from merging.recipe import Recipe


@dataclass(frozen=True)
class Calibrated:
    folder: str
    tokens: tuple[int, ...]
    n_bytes: int


def calibrate(
    recipe: Recipe, out: Path, texts: str = "town", each: int = 64, device: str = "auto", pick: float = 1.0,
    base: bool = False,
) -> Iterator[Calibrating | Calibrated]:  # fmt: skip
    """Measure a recipe's experts on their own texts into the folder `out`, which appears when it is whole.

    The method of the recipe says which stream is measured. A run that was stopped goes on in `out` + ".partial". pick:
    the share of texts that is kept (`picking.py`); as many more are read. base: what the base's own matrices read is
    measured too, as LEWIS and the recipe's AIM need it.
    """
    refuse_existing(out)
    job = _Job(recipe, out.with_name(f"{out.name}.partial"), texts, each, device, pick, base)
    yield from job.write_answers()
    yield from job.measure()
    yield Calibrated(str(out), job.kept.tokens, job.kept.finish(out))


class _Job:
    def __init__(
        self, recipe: Recipe, folder: Path, texts: str, each: int, device: str, pick: float, base: bool
    ) -> None:
        from merging.methods import METHODS

        method = METHODS.get(recipe.method)
        if method is None or recipe.base is None or recipe.slices:
            raise UserError("E_CALIBRATE", "this needs a recipe of one merge of whole models with a base")
        self.recipe, self.folder = recipe, folder
        self.stream: Stream = method.calibrated or "own"
        self.base, *self.experts = members(recipe)
        if not 0 < pick <= 1:
            raise UserError("E_TEXTS", f"{pick:g} is no share of texts", do="Choose one above 0, at most 1.")
        self.texts = read_for(texts, self.experts, ceil(each / pick))
        self.models = Models(device)
        if pick < 1:
            judge = self.models.model(self.base)
            self.texts = [picked(judge, own, min(each, ceil(pick * len(own)))) for own in self.texts]
        self.device = self.models.device
        sources = [self.base.fingerprint, *(expert.fingerprint for expert in self.experts)]
        said = [text.model_dump_json() for own in self.texts for text in own]
        self.follows = self.stream in ("merged", "learned")  # the merge, layer by layer
        shaper = dict(recipe.parameters).get("shaper", "none")
        self.reads_base = base or shaper == "aim"
        if self.stream == "learned" and shaper != "none":
            what = "gains are learned without a shaper: the parts of a shaped merge do not add up"
            raise UserError("E_CALIBRATE", what, where="shaper", do="Measure without it.")
        begin(folder, [sources, said, self.stream, recipe.to_yaml() if self.follows else ""])

    def write_answers(self) -> Iterator[Calibrating]:
        total, began, first = sum(map(len, self.texts)), perf_counter(), None
        for done in answer(self.models, self.experts, self.texts, self.folder / "texts.jsonl"):
            first = len(done) if first is None else first  # an earlier run's answers took no time
            asked = len(done) - first
            left = (perf_counter() - began) / asked * (total - len(done)) if asked else None
            yield Calibrating("texts", len(done), total, left)
            rest = iter(done)
            if len(done) == total:
                self.texts = [[next(rest) for _ in own] for own in self.texts]

    def measure(self) -> Iterator[Calibrating]:
        """Every part of the model for every expert; what an earlier run wrote is not measured again."""
        skeleton = self.models.model(self.base)
        if skeleton.swapped:
            raise UserError("E_MEMORY", "the base does not fit on the device", do="Measure with --device cpu.")
        use_cores(skeleton.module)
        self.layers = Layers(skeleton.module)
        names = self._checked_names()
        pad = skeleton.tokenizer.pad_token_id
        self._most = most_read(skeleton)
        tokens = [[token_ids(skeleton.tokenizer, text)[: self._most] for text in own] for own in self.texts]
        tokens = [[ids for ids in own if ids] for own in tokens]
        n_tokens = tuple(sum(map(len, own)) for own in tokens)
        if 0 in n_tokens:
            raise UserError("E_TEXTS", "its texts have no token", where=self.experts[n_tokens.index(0)].source)
        embedding = self.layers.name_of(skeleton.module.get_input_embeddings())
        self.kept = Kept(
            self.folder, self.base, self.experts, self.stream, n_tokens, self.layers, embedding, names, self.device
        )
        texts = [batches(own, pad if isinstance(pad, int) else 0, self.device) for own in tokens]
        a_stream = len(texts) * (len(self.layers) + 1)
        backward = len(texts) if self.stream == "gradients" else 0
        learned = steps_for(max(map(len, self.texts))) if self.stream == "learned" else 0
        steps = Steps((1 + self.reads_base) * a_stream + backward + learned)
        for t, own in enumerate(texts):
            if not self.follows:
                yield from self._own_stream(t, own, steps)
            if self.reads_base:
                yield from self._base_stream(t, own, steps)
        if self.follows:
            yield from self._merged_stream(texts, steps)
        if learned:
            yield from self._learned(learned, steps)
        if backward:
            yield from self._gradients(tokens, steps)

    def _own_stream(self, t: int, own: list[Batch], steps: Steps) -> Iterator[Calibrating]:
        if self.kept.has(t, ENDS):
            steps.skip(len(self.layers) + 1)
            return
        expert = self.experts[t]
        ends = self._state(expert, self.layers.other_names())
        readings = start_all(self.layers, own, ends)
        for i in range(len(self.layers)):
            state = self._state(expert, self.layers.names(i).values())
            if self.kept.has(t, str(i)):
                readings = through(self.layers, i, readings, state)
            else:
                with self._kept_grams(t, str(i)) as grams:
                    readings = through(self.layers, i, readings, state, grams)
            yield steps.one()
        with self._kept_grams(t, ENDS, {COUNTS: self._counts(own)}) as grams:
            finish_all(self.layers, readings, ends, grams)
        yield steps.one()

    def _counts(self, own: list[Batch]) -> Tensor:
        """How often each row of the embedding is looked up, a token."""
        ids = torch.cat([batch.ids[batch.real] for batch in own]).cpu()
        return torch.bincount(ids, minlength=self.base.tensors[self.kept.embedding].shape[0]).float() / len(ids)

    def _base_stream(self, t: int, own: list[Batch], steps: Steps) -> Iterator[Calibrating]:
        """How large the base's own inputs are in expert t's text, column by column."""
        if self.kept.has(t, BASE):
            steps.skip(len(self.layers) + 1)
            return
        found: dict[str, Tensor] = {}
        ends = self._state(self.base, self.layers.other_names())
        readings = start_all(self.layers, own, ends)
        for i in (*range(len(self.layers)), None):
            with self.layers.grams(i, columns=True) as columns:
                if i is None:
                    finish_all(self.layers, readings, ends, columns)
                else:
                    state = self._state(self.base, self.layers.names(i).values())
                    readings = through(self.layers, i, readings, state, columns)
            found |= {name: (total / columns.tokens).cpu() for name, total in columns.sums.items()}
            yield steps.one()
        self.kept.keep(t, BASE, found)

    def _merged_stream(self, texts: list[list[Batch]], steps: Steps) -> Iterator[Calibrating]:
        """Where head and embedding are one tensor the layers read it as merged by what is looked up in it alone; what
        the head reads comes last.
        """
        for t, own in enumerate(texts):
            if not self.kept.has(t, ENDS):
                self.kept.keep(t, ENDS, {COUNTS: self._counts(own)}, {"matrices": "{}"})
        self.kept.write_about(self.kept.about([ENDS]))
        plan = make_plan(replace(self.recipe, calibration=str(self.folder.absolute())))
        ends = self._merged(plan, self.layers.other_names(but_head=True))
        readings = [start_all(self.layers, own, ends) for own in texts]
        for i in range(len(self.layers)):
            for t, expert in enumerate(self.experts):
                if not self.kept.has(t, str(i)):
                    with self._kept_grams(t, str(i)) as grams:
                        measure(self.layers, i, readings[t], self._state(expert, self.layers.names(i).values()), grams)
                yield steps.one()
            calibration = Calibration(self.folder, self.kept.about([ENDS, str(i)]))
            merged = self._merged(replace(plan, calibration=calibration), self.layers.names(i).values())
            readings = [through(self.layers, i, own, merged) for own in readings]
        for t, expert in enumerate(self.experts):
            if not self.kept.has(t, HEAD):
                with self._kept_grams(t, HEAD) as grams:
                    finish_all(self.layers, readings[t], self._state(expert, self.layers.other_names()), grams)
            yield steps.one()

    def _learned(self, n: int, steps: Steps) -> Iterator[Calibrating]:
        """The gains of every expert's part in each tensor of the merge that was just measured."""
        if self.kept.has_all(GAINS):
            steps.skip(n)
            return
        calibration = Calibration(self.folder, self.kept.about(self.kept.parts))
        plan = make_plan(replace(self.recipe, calibration=str(self.folder.absolute())))
        below, parts = parts_of(replace(plan, calibration=calibration), self.kept.names)
        model = self.models.model(self.base)
        words = model.tokenizer
        spoken = [[(token_ids(words, text)[: self._most], answer_start(words, text)) for text in own]
                  for own in self.texts]  # fmt: skip
        spoken = [[(ids, start) for ids, start in own if len(ids) > max(start, 1)] for own in spoken]
        if [] in spoken:
            raise UserError("E_TEXTS", "its texts hold no answer", where=self.experts[spoken.index([])].source)
        below, parts = (
            {name: one.to(self.device, self.models.dtype) for name, one in state.items()} for state in (below, parts)
        )
        experts = [self._state(expert, self.kept.names) for expert in self.experts]
        gains: Gains = {}
        for found in learn(model.module, below, parts, experts, spoken, n):
            gains = found
            yield steps.one()
        for t in range(len(self.experts)):  # a tensor that is no sum of parts keeps its strength
            ones = {name: torch.ones(self.base.tensors[name].shape[-1]) for name in self.kept.names}
            self.kept.keep(t, GAINS, ones | {name: one[t].cpu() for name, one in gains.items()})

    def _gradients(self, tokens: list[list[list[int]]], steps: Steps) -> Iterator[Calibrating]:
        module, names = self.models.model(self.base).module, self.kept.names
        base = self._state(self.base, names)
        for t, own in enumerate(tokens):
            if not self.kept.has(t, GRADIENTS):
                longer = [ids for ids in own if len(ids) > 1]
                found = gradients(module, self._state(self.experts[t], names), base, longer)
                self.kept.keep(t, GRADIENTS, found)
            yield steps.one()

    @contextmanager
    def _kept_grams(self, t: int, part: str, more: Mapping[str, Tensor] | None = None) -> Iterator[Grams]:
        """For what a part of the model, a layer by its number, reads of expert t's texts; written at the end."""
        with self.layers.grams(int(part) if part.isdecimal() else None) as grams:
            yield grams
        self.kept.keep_grams(t, part, grams, more)

    def _checked_names(self) -> list[str]:
        """The model's tensors. Every one of the module is one of the files', which some architectures rename or
        stack.
        """
        module = self.models.model(self.base).module
        embedding = self.layers.name_of(module.get_input_embeddings())
        head = self.layers.name_of(module.get_output_embeddings())
        names = {
            *self.layers.other_names(),
            *(n for i in range(len(self.layers)) for n in self.layers.names(i).values()),
        }
        tied = head != embedding and head not in self.base.tensors
        strange = sorted(names - self.base.tensors.keys() - ({head} if tied else set()))
        if strange:
            what = f"its module and its files name tensors differently, such as {strange[0]}"
            raise UserError("E_CALIBRATE", what, where=self.base.source)
        for expert in self.experts:
            if any(expert.tensors[name].shape != info.shape for name, info in self.base.tensors.items()):
                what = "its tensors have other shapes than the base's"
                raise UserError("E_CALIBRATE", what, where=expert.source, do="Take experts with the base's vocabulary.")
        return sorted(names & self.base.tensors.keys())

    def _state(self, model: Checkpoint, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: model.read(name).to(self.device, self.models.dtype) for name in names if name in model.tensors}

    def _merged(self, plan: Plan, names: Iterable[str]) -> dict[str, Tensor]:
        held = {name for name in names if name in self.base.tensors}
        with one_thread_a_matrix():
            found = {name: merged_tensor(plan, plan.tensor(name), None) for name in sorted(held)}
        return {name: tensor.to(self.device, self.models.dtype) for name, tensor in found.items()}
