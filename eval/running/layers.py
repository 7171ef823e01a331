"""A model run layer by layer, with weights given at each call: what a layer reads can be measured, and a merged layer
can stand before it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from merging.errors import UserError

Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a layer is given beside the hidden states
State = Mapping[str, Tensor]  # a model's tensors by name
STRIP = 256  # rows or columns of a Gram matrix at a time


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts padded on the right: `ids` and `real` (texts, tokens). places: which of the texts they are."""

    ids: Tensor
    real: Tensor
    places: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """A batch before some layer: hidden (texts, tokens, width), and how the model would call each layer."""

    batch: Batch
    hidden: Tensor
    calls: tuple[Call, ...]


class Layers:
    """The layers of a module. Its own weights do not count: every call brings the tensors to use."""

    def __init__(self, module: PreTrainedModel) -> None:
        lists = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.ModuleList)]
        if not lists:
            raise UserError("E_CALIBRATE", f"{type(module).__name__} has no list of layers to follow.")
        self._path, self._layers = max(lists, key=lambda found: len(found[1]))
        self._module = module

    def __len__(self) -> int:
        return len(self._layers)

    def names(self, i: int) -> dict[str, str]:
        """The tensors of a layer: their name in the model by their name in the layer."""
        return {name: f"{self._path}.{i}.{name}" for name in self._layers[i].state_dict()}

    def other_names(self, *, but_head: bool = False) -> list[str]:
        """The model's tensors outside the layers."""
        head = self.name_of(self._head()) if but_head else ""
        return [n for n in self._module.state_dict() if n != head and not n.startswith(f"{self._path}.")]

    def start(self, batch: Batch, state: State) -> Reading:
        """The batch before the first layer, by the tensors outside the layers."""
        starts: list[Tensor] = []
        calls: list[Call] = []

        def note(hidden: Tensor, *args: Any, **named: Any) -> Tensor:
            starts.append(hidden)
            calls.append((args, named))
            return hidden

        with self._stand_in(note):
            self._call(batch, state)
        return Reading(batch, starts[0], tuple(calls))

    def step(self, i: int, reading: Reading, state: State) -> Reading:
        """Through layer i, by its tensors."""
        own = {name: state[whole] for name, whole in self.names(i).items()}
        args, named = reading.calls[i]
        out = functional_call(self._layers[i], own, (reading.hidden, *args), named)
        if not isinstance(out, Tensor):
            raise UserError("E_CALIBRATE", f"{type(self._layers[i]).__name__} gives more than hidden states.")
        return Reading(reading.batch, out, reading.calls)

    def finish(self, reading: Reading, state: State) -> None:
        """From the last layer into the head."""
        with self._stand_in(lambda hidden, *_, **__: reading.hidden):
            self._call(reading.batch, state)

    def _head(self) -> nn.Module:
        return self._module.get_output_embeddings()  # pyright: ignore[reportReturnType]

    def name_of(self, part: nn.Module | None) -> str:
        """What the model calls the weight of one of its modules."""
        return next(f"{name}.weight" for name, own in self._module.named_modules() if own is part)

    def is_transposed(self, name: str) -> bool:
        """Whether the module keeps this matrix as (inputs, outputs)."""
        return type(self._module.get_submodule(name.rpartition(".")[0])) is Conv1D

    @contextmanager
    def grams(self, i: int | None, *, columns: bool = False) -> Iterator["Grams"]:
        """Measures what the matrices and norms of layer i read, or without i the head and the norms beside layers."""
        if i is None:
            own = [(name, part) for name, part in self._module.named_modules() if not name.startswith(f"{self._path}.")]
            matrices = {self.name_of(self._head()): self._head()}
        else:
            own = list(self._layers[i].named_modules(prefix=f"{self._path}.{i}"))
            matrices = {f"{name}.weight": part for name, part in own if type(part) in (nn.Linear, Conv1D)}
        norms = {f"{name}.weight": part for name, part in own if type(part).__name__.endswith("Norm")}
        found = Grams(matrices, norms, columns=columns)
        try:
            yield found
        finally:
            found.close()

    @contextmanager
    def _stand_in(self, call: Any) -> Iterator[None]:
        """Every layer does this instead."""
        for layer in self._layers:
            layer.forward = call
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward

    def _call(self, batch: Batch, state: State) -> None:
        """The head computes one token's logits only: others would take time, and fill the memory."""
        given = {name: state[name] for name in self.other_names() if name in state}
        call = {"input_ids": batch.ids, "attention_mask": batch.real.long(), "use_cache": False}
        cut = self._head().register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :1],))
        try:
            functional_call(self._module, given, (), call)
        finally:
            cut.remove()


class _AllRead(Exception):
    """Every matrix and norm of a layer has read a batch."""


class Grams:
    """Sums of x x^T over real tokens, by tensor name, whole once closed; matrices that read the same share one.

    columns: sums of |x| and of x^2 instead, (2, n).
    squares: of each norm the sums of its squared inputs (n,), once they have the norm's length and before its scale;
    where it norms every head apart, their means over heads.
    """

    def __init__(self, matrices: Mapping[str, nn.Module], norms: Mapping[str, nn.Module], *, columns: bool) -> None:
        self._columns = columns
        self.sums: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        self.same_as: dict[str, str] = {}
        self.tokens = 0
        self._real: Tensor | None = None
        self._last: tuple[str, Tensor] | None = None
        self._all = {*matrices, *norms}
        self._waiting: set[str] | None = None
        reads = [(name, part, self._add) for name, part in matrices.items()]
        reads += [(name, part, self._square) for name, part in norms.items()]
        self._hooks = [part.register_forward_pre_hook(partial(self._read, name, add)) for name, part, add in reads]

    @contextmanager
    def of(self, batch: Batch, *, no_further: bool = False) -> Iterator[None]:
        """For one batch that runs through the layer; no_further: until everything has read it."""
        self._real = batch.real
        self._waiting = set(self._all) if no_further else None
        self.tokens += int(batch.real.sum())
        with suppress(_AllRead):
            yield
        self._real = self._last = self._waiting = None

    @torch.inference_mode()
    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        if not self._columns:
            for total in self.sums.values():
                for end in range(STRIP, len(total), STRIP):
                    total[end:, end - STRIP : end] = total[end - STRIP : end, end:].T

    def _read(self, name: str, add: Callable[..., None], part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        add(name, part, inputs)
        if self._waiting is not None:
            self._waiting.discard(name)
            if not self._waiting:
                raise _AllRead

    def _add(self, name: str, part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        assert self._real is not None
        if self._last is not None and self._last[1] is x:
            self.same_as[name] = self._last[0]
            return
        self._last, self.same_as[name] = (name, x), name
        rows = x.reshape(-1, x.shape[-1])[self._real.reshape(-1)].float()
        if self._columns:
            self.sums[name] = self.sums.get(name, 0) + torch.stack([rows.abs().sum(0), rows.square().sum(0)])
            return
        total = self.sums.setdefault(name, rows.new_zeros(rows.shape[1], rows.shape[1]))
        for at in range(0, len(total), STRIP):  # what lies below the diagonal is known once all is summed
            total[at : at + STRIP, at:].addmm_(rows[:, at : at + STRIP].T, rows[:, at:])

    def _square(self, name: str, part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert self._real is not None
        rows = inputs[0][self._real].float()  # (tokens, n), or (tokens, heads, n)
        if isinstance(part, nn.LayerNorm):
            rows = rows - rows.mean(-1, keepdim=True)
        rows = rows.square()
        floor = getattr(part, "variance_epsilon", None) or getattr(part, "eps", None) or 1e-38
        rows = rows / (rows.mean(-1, keepdim=True) + floor)
        by_token = rows.reshape(len(rows), -1, rows.shape[-1]).mean(1)
        self.squares[name] = self.squares.get(name, 0) + by_token.sum(0)


def batches(texts: Sequence[Sequence[int]], pad: int, device: torch.device, tokens: int = 4096) -> list[Batch]:
    """Texts of like length together, at most about `tokens` a batch."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: list[Batch] = []
    while order:
        n = max(1, tokens // len(texts[order[-1]]))
        rows, order = order[-n:], order[:-n]
        ids = torch.full((len(rows), max(len(texts[i]) for i in rows)), pad)
        for row, i in zip(ids, rows, strict=True):
            row[: len(texts[i])] = torch.tensor(texts[i])
        lengths = torch.tensor([len(texts[i]) for i in rows])
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        found.append(Batch(ids.to(device), real.to(device), tuple(rows)))
    return found


# Inference mode belongs to a thread, so it must not stay on while a generator waits.


@torch.inference_mode()
def start_all(layers: Layers, texts: Sequence[Batch], ends: State) -> list[Reading]:
    """Batches before the first layer."""
    return [layers.start(batch, ends) for batch in texts]


@torch.inference_mode()
def through(
    layers: Layers, i: int, readings: Sequence[Reading], state: State, grams: Grams | None = None
) -> list[Reading]:
    """Readings after layer i; what its matrices read goes into `grams`."""
    found = []
    for reading in readings:
        with grams.of(reading.batch) if grams else nullcontext():
            found.append(layers.step(i, reading, state))
    return found


@torch.inference_mode()
def measure(layers: Layers, i: int, readings: Sequence[Reading], state: State, grams: Grams) -> None:
    """What the matrices of layer i read goes into `grams`; what the layer makes of it is not computed."""
    for reading in readings:
        with grams.of(reading.batch, no_further=True):
            layers.step(i, reading, state)


@torch.inference_mode()
def finish_all(layers: Layers, readings: Sequence[Reading], ends: State, grams: Grams) -> None:
    """Readings into the head."""
    for reading in readings:
        with grams.of(reading.batch):
            layers.finish(reading, ends)
