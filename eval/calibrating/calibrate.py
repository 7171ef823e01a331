"""Measures what the experts' matrices read, for the methods that merge by it (`merging/calibration.py`).

Layer by layer: of one layer and one expert the Gram matrices are summed, written and forgotten. The stream that a layer
reads is the expert's own, or for RegMean++ the merge's: then every layer is merged as soon as all experts are measured
on it, and all texts go on through the merged layer. Everything is kept as it comes, so a stopped run goes on.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from eval.calibrating.gradients import gradients
from eval.calibrating.texts import answer, read_texts, token_ids
from eval.running.layers import Batch, Grams, Layers, Reading, batches, finish_all, start_all, through
from eval.running.models import Models
from eval.running.runtime import use_cores
from merging.calibration import ABOUT, COUNTS, ENDS, GRADIENTS, About, Calibration, file_name
from merging.checkpoint import Checkpoint
from merging.compute import merged_tensor
from merging.engine import one_thread_a_matrix
from merging.errors import UserError
from merging.models import open_model
from merging.partial import sha256_of
from merging.plan import Plan, make_plan
from merging.recipe import Recipe

_LONGEST = 512  # tokens of a text
_PRODUCTS = "products of "


@dataclass(frozen=True)
class Calibrating:
    """How far it is: `step` says what is counted."""

    step: str
    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class Calibrated:
    folder: str
    tokens: tuple[int, ...]
    n_bytes: int


def calibrate(
    recipe: Recipe, out: Path, texts: str = "town", each: int = 64, device: str = "auto"
) -> Iterator[Calibrating | Calibrated]:
    """Measure a recipe's experts on their own texts into the folder `out`, which appears when it is whole.

    The method of the recipe says which stream is measured. A run that was stopped goes on in `out` + ".partial".
    """
    if out.exists():
        raise UserError("E_EXISTS", "there is something here already", where=str(out), do="Choose another folder.")
    job = _Job(recipe, out.with_name(f"{out.name}.partial"), texts, each, device)
    yield from job.write_answers()
    yield from job.measure()
    yield job.finish(out)


class _Job:
    def __init__(self, recipe: Recipe, folder: Path, texts: str, each: int, device: str) -> None:
        from merging.methods import METHODS

        method = METHODS.get(recipe.method)
        if method is None or recipe.base is None or recipe.slices or recipe.stages:
            raise UserError("E_CALIBRATE", "this needs a recipe of one merge of whole models with a base")
        self.recipe, self.folder = recipe, folder
        self.stream = method.calibrated or "own"
        self.base, *self.experts = [
            open_model(source, recipe.folder, base=recipe.base)
            for source in (recipe.base, *(expert.model for expert in recipe.beside_base))
        ]
        names = [expert.name for expert in recipe.beside_base]
        self.texts = read_texts(texts, names, each)
        self.models = Models(device)
        self.device = self.models.device
        self._begin(texts, each)

    def _begin(self, texts: str, each: int) -> None:
        """The folder of this very run, new or found again."""
        sources = [self.base.fingerprint, *(expert.fingerprint for expert in self.experts)]
        said = [text.model_dump_json() for own in self.texts for text in own]
        settings = self.recipe.to_yaml() if self.stream == "merged" else ""
        run = hashlib.sha256(json.dumps([sources, said, self.stream, settings]).encode()).hexdigest()
        mark = self.folder / "run"
        if self.folder.exists() and (not mark.is_file() or mark.read_text() != run):
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(run)

    # --- the numbers ----------------------------------------------------------------------------------------------

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
        self.skeleton = self.models.model(self.base)
        use_cores(self.skeleton.module)
        self.layers = Layers(self.skeleton.module)
        self._check_names()
        pad = self.skeleton.tokenizer.pad_token_id
        most = min(self.skeleton.positions or _LONGEST, _LONGEST)
        tokens = [[token_ids(self.skeleton.tokenizer, text)[:most] for text in own] for own in self.texts]
        tokens = [[ids for ids in own if ids] for own in tokens]
        self.tokens = tuple(sum(map(len, own)) for own in tokens)
        if 0 in self.tokens:
            raise UserError("E_TEXTS", "its texts have no token", where=self.experts[self.tokens.index(0)].source)
        texts = [batches(own, pad if isinstance(pad, int) else 0, self.device) for own in tokens]
        a_stream = len(texts) * (len(self.layers) + 1)
        merged = len(texts) * len(self.layers) if self.stream == "merged" else 0
        steps = _Steps(a_stream + merged + len(texts) * len(self._backward()))
        for t, own in enumerate(texts):
            yield from self._own_stream(t, own, steps, measured=not merged)
        if merged:
            yield from self._merged_stream(texts, steps)
        if self._backward():
            yield from self._gradients(tokens, steps)

    def _own_stream(self, t: int, own: list[Batch], steps: "_Steps", measured: bool) -> Iterator[Calibrating]:
        expert = self.experts[t]
        ends = self._state(expert, self.layers.other_names())
        readings = start_all(self.layers, own, ends)
        for i in range(len(self.layers)):
            state = self._state(expert, self.layers.names(i).values())
            if measured and not self._path(t, str(i)).is_file():
                readings = self._measured(t, i, readings, state)
            else:
                readings = through(self.layers, i, readings, state)
            yield steps.one()
        if not self._path(t, ENDS).is_file():
            ids = torch.cat([batch.ids[batch.real] for batch in own]).cpu()
            counts = torch.bincount(ids, minlength=self.base.tensors[self.embedding].shape[0]).float() / len(ids)
            with self.layers.grams(None) as grams:
                finish_all(self.layers, readings, ends, grams)
            self._write(t, ENDS, grams, {COUNTS: counts})
        yield steps.one()

    def _merged_stream(self, texts: list[list[Batch]], steps: "_Steps") -> Iterator[Calibrating]:
        """The head was measured on the experts' own streams, since where it is tied it must be merged first."""
        (self.folder / ABOUT).write_text(self._about([ENDS]).model_dump_json())
        plan = make_plan(replace(self.recipe, calibration=str(self.folder.absolute())))
        ends = self._merged(plan, self.layers.other_names())
        readings = [start_all(self.layers, own, ends) for own in texts]
        for i in range(len(self.layers)):
            for t, expert in enumerate(self.experts):
                if not self._path(t, str(i)).is_file():
                    self._measured(t, i, readings[t], self._state(expert, self.layers.names(i).values()))
                yield steps.one()
            calibration = Calibration(self.folder, self._about([ENDS, str(i)]))
            merged = self._merged(replace(plan, calibration=calibration), self.layers.names(i).values())
            readings = [through(self.layers, i, own, merged) for own in readings]

    def _gradients(self, tokens: list[list[list[int]]], steps: "_Steps") -> Iterator[Calibrating]:
        base = self._state(self.base, self.names)
        for t, own in enumerate(tokens):
            path = self._path(t, GRADIENTS)
            if not path.is_file():
                longer = [ids for ids in own if len(ids) > 1]
                found = gradients(self.skeleton.module, self._state(self.experts[t], self.names), base, longer)
                save_file(found, path.with_suffix(".part"))
                os.replace(path.with_suffix(".part"), path)
            yield steps.one()

    def _measured(self, t: int, i: int, readings: list[Reading], state: Mapping[str, Tensor]) -> list[Reading]:
        """The readings after layer i, which expert t's tensors in `state` make; what it read is written."""
        with self.layers.grams(i) as grams:
            found = through(self.layers, i, readings, state, grams)
        self._write(t, str(i), grams, {})
        return found

    def _write(self, t: int, part: str, grams: Grams, more: Mapping[str, Tensor]) -> None:
        """Means a token, and the T x T products of every matrix's deltas under them."""
        tensors = {name: (gram / grams.tokens).cpu() for name, gram in grams.sums.items()} | dict(more)
        # A tied head stands under the name of the embedding, which is the tensor that the files hold.
        same = {name if name in self.base.tensors else self.embedding: kept for name, kept in grams.same_as.items()}
        for name in same.keys() - {self.embedding}:
            tensors[_PRODUCTS + name] = self._products(name, grams.sums[same[name]] / grams.tokens)
        path = self._path(t, part)
        save_file(tensors, path.with_suffix(".part"), {"matrices": json.dumps(same, sort_keys=True)})
        os.replace(path.with_suffix(".part"), path)

    def _products(self, name: str, gram: Tensor) -> Tensor:
        base = self.base.read(name).to(self.device).float()
        deltas = torch.stack([expert.read(name).to(self.device).float() - base for expert in self.experts])
        if self.layers.is_transposed(name):
            deltas = deltas.mT
        return torch.einsum("smn,umn->su", (deltas @ gram).double(), deltas.double()).cpu()

    # --- tensors --------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        """Every tensor of the module is one of the files', which some architectures rename or stack."""
        embedding = self.layers.name_of(self.skeleton.module.get_input_embeddings())
        head = self.layers.name_of(self.skeleton.module.get_output_embeddings())
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
        self.embedding, self.names = embedding, sorted(names & self.base.tensors.keys())

    def _state(self, model: Checkpoint, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: model.read(name).to(self.device, self.models.dtype) for name in names if name in model.tensors}

    def _merged(self, plan: Plan, names: Iterable[str]) -> dict[str, Tensor]:
        held = {name for name in names if name in self.base.tensors}
        with one_thread_a_matrix():
            found = {name: merged_tensor(plan, plan.tensor(name), None) for name in sorted(held)}
        return {name: tensor.to(self.device, self.models.dtype) for name, tensor in found.items()}

    # --- the folder -----------------------------------------------------------------------------------------------

    def _path(self, t: int, part: str) -> Path:
        return self.folder / file_name(t, part)

    def _about(self, parts: Sequence[str]) -> About:
        """Of these parts, which are written for all experts."""
        matrices: dict[str, tuple[str, str]] = {}
        products: dict[str, list[list[list[float]]]] = {}
        for part in parts:
            for t in range(len(self.experts)):
                with safe_open(self._path(t, part), "pt") as file:
                    same = json.loads(file.metadata()["matrices"])
                    matrices |= {name: (part, kept) for name, kept in same.items()}
                    for name in same.keys() - {self.embedding}:
                        products.setdefault(name, []).append(file.get_tensor(_PRODUCTS + name).tolist())
        return About.model_validate(
            {
                "base": self.base.fingerprint,
                "experts": [expert.fingerprint for expert in self.experts],
                "stream": self.stream,
                "tokens": self.tokens,
                "matrices": matrices,
                "embedding": self.embedding,
                "transposed": sorted(name for name in matrices if self.layers.is_transposed(name)),
                "products": products,
                "gradients": self.names if self.stream == "gradients" else [],
            }
        )

    def finish(self, out: Path) -> Calibrated:
        """Gives the folder its name."""
        files = [self._path(t, p) for t in range(len(self.experts)) for p in (*self._parts(), *self._backward())]
        hashes = {path.name: sha256_of(path) for path in files}
        about = self._about(self._parts()).model_copy(update={"files": hashes})
        (self.folder / ABOUT).write_text(about.model_dump_json())
        (self.folder / "run").unlink()
        self.folder.rename(out)
        return Calibrated(str(out), about.tokens, sum((out / name).stat().st_size for name in hashes))

    def _backward(self) -> list[str]:
        return [GRADIENTS] if self.stream == "gradients" else []

    def _parts(self) -> list[str]:
        return [*map(str, range(len(self.layers))), ENDS]


class _Steps:
    """Counts parts of the model, for a progress bar."""

    def __init__(self, total: int) -> None:
        self._done, self._total, self._began = 0, total, perf_counter()

    def one(self) -> Calibrating:
        self._done += 1
        left = (perf_counter() - self._began) / self._done * (self._total - self._done)
        return Calibrating("layers", self._done, self._total, left)
