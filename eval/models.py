"""Models in memory: loaded from folders, kept while they fit, given new weights when a merge changes.

Weights come from safetensors alone and no code of a model is run.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from eval.runtime import choose_device, dtype_on, free_memory
from merging.checkpoint import Checkpoint
from merging.companions import GENERATION, TOKENIZER, companions, voice
from merging.errors import UserError
from merging.plan import Plan
from merging.view import stored

SAFE = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Merged:
    """A merge that is on no disk: what an export would hold, with weights that are computed when needed."""

    plan: Plan
    state: Callable[[], Mapping[str, Tensor]]

    @property
    def key(self) -> str:
        """Merges with the same key differ in their weights only."""
        recipe = self.plan.recipe
        words = (self.plan.tokenizer.source.fingerprint, self.plan.tokenizer.added, recipe.chat_template)
        return f"merge of {self.plan.base.fingerprint} {words}"


Source = Checkpoint | Merged


@dataclass(frozen=True)
class Model:
    """A model in memory with its own tokenizer. `digest` names its weights."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    digest: str

    @property
    def positions(self) -> int | None:
        """How many tokens it can read and write in all; None where the config does not say."""
        return getattr(self.module.config.get_text_config(), "max_position_embeddings", None)


class Models:
    """Models in memory: kept while they fit, the least recently used pushed out otherwise. For one thread."""

    def __init__(self, device: str = "auto", memory: int | None = None) -> None:
        transformers.utils.logging.disable_progress_bar()
        self.device = choose_device(device)
        self.dtype = dtype_on(self.device)
        self._memory = free_memory(self.device) if memory is None else memory
        self._held: OrderedDict[str, tuple[Model, int]] = OrderedDict()  # least recently used first

    def groups(self, sources: Mapping[str, Source]) -> list[list[str]]:
        """Names in order, cut into groups that fit into memory together; one group where all fit."""
        groups: list[list[str]] = []
        room = 0
        for name, source in sources.items():
            size = self._size(source)
            if not groups or size > room:
                groups.append([])
                room = self._memory
            groups[-1].append(name)
            room -= size
        return groups

    def model(self, source: Source) -> Model:
        """From memory, or loaded. A merge that changed gets its new weights copied into the model that is there."""
        key = source.key if isinstance(source, Merged) else source.fingerprint
        held = self._held.get(key)
        if isinstance(source, Merged) and (held is None or held[0].digest != source.plan.digest):
            held = self._merged(source, held)
        elif isinstance(source, Checkpoint) and held is None:
            held = self._loaded(source)
        assert held is not None
        self._held[key] = held
        self._held.move_to_end(key)
        return held[0]

    def _loaded(self, checkpoint: Checkpoint) -> tuple[Model, int]:
        size = self._make_room(checkpoint)
        module = load_source(checkpoint, self.dtype)
        tokenizer = load_tokenizer(voice(checkpoint), checkpoint.source)
        return Model(self._ready(module), tokenizer, checkpoint.fingerprint), size

    def _merged(self, source: Merged, held: tuple[Model, int] | None) -> tuple[Model, int]:
        plan, state = source.plan, source.state()
        if held is not None and _copy_into(held[0].module, state):
            return Model(held[0].module, held[0].tokenizer, plan.digest), held[1]
        size = self._make_room(source)
        # Copies: the module must not share memory with tensors that somebody else changes later.
        own = {name: tensor.to(self.dtype, copy=True) for name, tensor in state.items()}
        with TemporaryDirectory() as folder:
            write_texts(plan, Path(folder))
            module = build(plan.base.source, Path(folder), own, self.dtype)
            return Model(self._ready(module), load_tokenizer(Path(folder), plan.base.source), plan.digest), size

    def _ready(self, module: PreTrainedModel) -> PreTrainedModel:
        """On the device, and decoding as everybody else: of a model's own generation settings only its ends count."""
        own = module.generation_config
        end, pad = (own.eos_token_id, own.pad_token_id) if own else (None, None)
        module.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad)
        return module.to(self.device).eval()  # pyright: ignore[reportArgumentType]

    def _make_room(self, source: Source) -> int:
        size = self._size(source)
        while self._held and sum(held for _, held in self._held.values()) + size > self._memory:
            self._held.popitem(last=False)
        return size

    def _size(self, source: Source) -> int:
        checkpoint = source.plan.base if isinstance(source, Merged) else source
        return sum(prod(info.shape) for info in checkpoint.tensors.values()) * self.dtype.itemsize


def write_texts(plan: Plan, folder: Path) -> None:
    """The files beside the weights of an export, into `folder`."""
    for name, content in companions(plan).files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def build(source: str, texts: Path, state: dict[str, Tensor], dtype: torch.dtype) -> PreTrainedModel:
    """A model that is no one folder as a module: its tensors in memory, config and endings from `texts`."""
    with plain_errors(source):
        config = AutoConfig.from_pretrained(texts, **SAFE)
        with torch.device("meta"):  # only to learn the class
            kind = type(AutoModelForCausalLM.from_config(config))
        module, report = kind.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
        )
        complete(report, source)
        if (texts / GENERATION).is_file():
            module.generation_config = GenerationConfig.from_pretrained(texts)
        return module


def load(folder: Path, source: str, dtype: torch.dtype | str) -> tuple[PreTrainedModel, list[str]]:
    """A model's folder as a module, and the tensors there that transformers has no use for."""
    transformers.utils.logging.disable_progress_bar()
    with plain_errors(source):
        module, report = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **SAFE
        )
        complete(report, source)
        return module, sorted(map(str, report["unexpected_keys"]))


def load_source(model: Checkpoint, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """One of a merge's sources as a module: its folder as it is, or what an adapter makes of the model below it.

    Without `dtype` as stored; an adapter's then in float32.
    """
    model = stored(model)
    if model.over is None:
        return load(model.folder, model.source, dtype or "auto")[0]
    dtype = dtype or torch.float32
    state = {name: model.read(name).to(dtype) for name in model.tensors}
    return build(model.source, model.folders[-1], state, dtype)


@torch.no_grad()
def _copy_into(module: PreTrainedModel, state: Mapping[str, Tensor]) -> bool:
    """Copies the weights in place. False, and nothing done, where they do not fill the module one to one.

    Architectures may name or stack tensors otherwise than their files do. Tied tensors are one in the module.
    """
    own = module.state_dict(keep_vars=True)
    given = {own[name].data_ptr() for name in state if name in own}
    if len(given) < len(state) or any(tensor.data_ptr() not in given for tensor in own.values()):
        return False
    for name, tensor in state.items():
        own[name].copy_(tensor)
    return True


def load_tokenizer(folder: Path, source: str) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise UserError(
            "E_TOKENIZER",
            "there are no tokenizer files, so this model cannot be asked.",
            where=source,
            do="Put tokenizer.json and tokenizer_config.json of the model it was trained from into its folder.",
        )
    with plain_errors(source):
        return AutoTokenizer.from_pretrained(folder, **SAFE)


def complete(report: dict[str, Any], source: str) -> None:
    missing = sorted(map(str, report["missing_keys"])) + sorted(str(item[0]) for item in report["mismatched_keys"])
    if missing:
        raise UserError(
            "E_WEIGHTS",
            f"The architecture needs {len(missing)} tensors that the weights do not hold, such as {missing[0]}.",
            where=source,
            do="Use the config.json that belongs to these weights.",
        )


@contextmanager
def plain_errors(source: str) -> Iterator[None]:
    """What transformers raises for a folder that it cannot make a model of, in one sentence."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(
            "E_MODEL",
            f"transformers cannot load this model: {reason}",
            where=source,
            do="Check that the folder is a whole causal language model with its tokenizer.",
        ) from error
