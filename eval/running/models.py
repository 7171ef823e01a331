"""Models in memory: kept while they fit, given new weights when a merge changes, sharing the tensors they share."""

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from eval.running.loading import build, load_source, load_tokenizer, write_texts
from eval.running.memory import in_memory, share
from eval.running.mixed import Mixed
from eval.running.runtime import dtype_on, free_memory
from eval.running.side_path import SidePath, suits
from eval.running.smile import Mixture
from eval.running.sources import Merged, Room, Source, is_whole, whole_models
from eval.running.swapping import spread
from merging.checkpoint import Checkpoint
from merging.companions import voice
from merging.device import choose_device, divide
from merging.errors import UserError
from merging.folded import Folded
from merging.model_files import GENERATION
from merging.view import stored


@dataclass(frozen=True)
class Model:
    """A model in memory with its own tokenizer. `digest` names its weights; `side` is there while they are folds,
    `mixture` where the model is one.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    digest: str
    side: SidePath | None = None
    mixture: Mixture | None = None

    @property
    def positions(self) -> int | None:
        """How many tokens it can read and write in all; None where the config does not say."""
        return getattr(self.module.config.get_text_config(), "max_position_embeddings", None)

    @property
    def swapped(self) -> int:
        """Layers that are fetched from host memory as they are used."""
        return list(getattr(self.module, "hf_device_map", {}).values()).count("cpu")

    def tensors(self) -> Iterator[Tensor]:
        beside = self.side or self.mixture
        return beside.tensors() if beside else self.module.parameters()


class Models:
    """Models in memory: kept while they fit, the least recently used pushed out otherwise. For one thread."""

    def __init__(self, device: str = "auto", memory: int | None = None) -> None:
        transformers.utils.logging.disable_progress_bar()
        self.device = choose_device(device)
        self.dtype = dtype_on(self.device)
        size = divide(free_memory(self.device)).chat if memory is None else memory
        self.room = Room(size, self.dtype.itemsize, swaps=self.device.type != "cpu")
        self._held: OrderedDict[str, Model] = OrderedDict()  # least recently used first

    def load(self, sources: Mapping[str, Source]) -> dict[str, Model]:
        """Those of one group, in order; whole models come into memory first, so that the others find their tensors."""
        for key in whole_models(sources.values()):
            if key in self._held:
                self._held.move_to_end(key)  # not to be pushed out by the others and loaded again
        found = {name: self.model(source) for name, source in sources.items() if is_whole(source)}
        return {name: found.get(name) or self.model(source) for name, source in sources.items()}

    def model(self, source: Source) -> Model:
        """From memory, or loaded. A merge that changed gets its new weights copied into the model that is there."""
        if isinstance(source, Checkpoint):
            return self._held_or(source.fingerprint, source.fingerprint, lambda _: self._loaded(source))
        if isinstance(source, Mixed):
            if not self.room.fits(source):
                raise UserError("E_MIXTURE", "The mixture does not fit on the device.", do="Switch the mixture off.")
            return self._held_or(source.key, f"{source.key} {source.mixing}", lambda _: self._mixture(source))
        if source.folded and self.room.fits(source):
            base, folded = self.model(stored(source.plan.base)).module, source.folded
            if suits(base, folded):
                return self._held_or(
                    source.key, source.plan.digest, lambda held: self._beside(source, base, folded, held)
                )
        source = replace(source, folded=None)
        return self._held_or(source.key, source.plan.digest, lambda held: self._merged(source, held))

    def _held_or(self, key: str, digest: str, make: Callable[[Model | None], Model]) -> Model:
        """The model of that key with these weights, or made from what is held of that key."""
        held = self._held.get(key)
        if held is None or held.digest != digest:
            held = make(held)
        self._held[key] = held
        self._held.move_to_end(key)
        return held

    def _loaded(self, checkpoint: Checkpoint) -> Model:
        self._make_room(self.room.own(checkpoint, self._held))
        module = load_source(checkpoint, self.dtype)
        if self.room.fits(checkpoint):
            share(module, [held.module for key, held in self._held.items() if held.digest == key])  # merges change
        tokenizer = load_tokenizer(voice(checkpoint), checkpoint.source)
        return Model(self._ready(module, checkpoint), tokenizer, checkpoint.fingerprint)

    def _beside(self, source: Merged, base: PreTrainedModel, folded: Folded, held: Model | None) -> Model:
        plan = source.plan
        if held is not None and held.side is not None and held.side.follows(base, folded):
            held.side.show(folded)
            return replace(held, digest=plan.digest)
        self._make_room(self.room.own(source, self._held))
        side = SidePath(base, folded)
        with TemporaryDirectory() as folder:
            write_texts(plan, Path(folder))
            if (Path(folder) / GENERATION).is_file():
                side.module.generation_config = GenerationConfig.from_pretrained(folder)
            tokenizer = load_tokenizer(Path(folder), plan.base.source)
        return Model(self._ready(side.module, source), tokenizer, plan.digest, side)

    def _mixture(self, source: Mixed) -> Model:
        self._held.pop(source.key, None)
        base = self.model(source.base)
        self._make_room(self.room.own(source, self._held))
        mixture = Mixture(base.module, source.triplets(source.mixing.most), source.mixing)
        return Model(mixture.module, base.tokenizer, f"{source.key} {source.mixing}", mixture=mixture)

    def _merged(self, source: Merged, held: Model | None) -> Model:
        plan, state = source.plan, source.state()
        if held is not None and not held.swapped and _copy_into(held.module, state):
            return replace(held, digest=plan.digest)
        self._make_room(self.room.own(source, self._held))
        # Copies: the module must not share memory with tensors that somebody else changes later.
        own = {name: tensor.to(self.dtype, copy=True) for name, tensor in state.items()}
        with TemporaryDirectory() as folder:
            write_texts(plan, Path(folder))
            module = build(plan.base.source, Path(folder), own, self.dtype)
            return Model(self._ready(module, source), load_tokenizer(Path(folder), plan.base.source), plan.digest)

    def _ready(self, module: PreTrainedModel, source: Source) -> PreTrainedModel:
        """On the device, and decoding as everybody else: of a model's own generation settings only its ends count."""
        own = module.generation_config
        end, pad = (own.eos_token_id, own.pad_token_id) if own else (None, None)
        module.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad)
        if not self.room.fits(source):
            return spread(module.eval(), self.device, self.room.n_bytes)
        return module.to(self.device).eval()  # pyright: ignore[reportArgumentType]

    def _make_room(self, size: int) -> None:
        while self._held and (
            self._used() + size > self.room.n_bytes or any(held.swapped for held in self._held.values())
        ):
            if self._held.popitem(last=False)[1].swapped:
                gc.collect()  # accelerate's hooks hold what they are hooked to

    def _used(self) -> int:
        return in_memory(tensor for held in self._held.values() for tensor in held.tensors())


@torch.no_grad()
def _copy_into(module: PreTrainedModel, state: Mapping[str, Tensor]) -> bool:
    """Copies the weights in place. False, and nothing done, where they do not fill the module one to one.

    Architectures may name or stack tensors otherwise than their files do. Tied tensors are one in the module.
    """
    own = module.state_dict(keep_vars=True)
    given = {id(own[name]) for name in state if name in own}
    if len(given) < len(state) or any(id(tensor) not in given for tensor in own.values()):
        return False
    for name, tensor in state.items():
        own[name].copy_(tensor)
    return True
