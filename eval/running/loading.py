"""Models from folders into modules. Weights come from safetensors alone and no code of a model is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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

from merging.checkpoint import Checkpoint
from merging.companions import companions
from merging.errors import UserError
from merging.model_files import GENERATION, TOKENIZER
from merging.plan import Plan
from merging.stage import Stage
from merging.view import stored

SAFE = {"local_files_only": True, "trust_remote_code": False}


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
    """One of a merge's sources as a module: its folder as it is, what an adapter makes of the model below it, or the
    merge that feeds this one.

    Without `dtype` as stored; an adapter's or a merge's then in float32.
    """
    model = stored(model)
    if model.over is None and not isinstance(model, Stage):
        return load(model.folder, model.source, dtype or "auto")[0]
    dtype = dtype or torch.float32
    state = {name: model.read(name).to(dtype) for name in model.tensors}
    return build(model.source, model.folders[-1], state, dtype)


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
