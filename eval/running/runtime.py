"""Runs models: prompts in, answers out.

All models of a comparison use one dtype: float32 on the CPU, where bfloat16 weights become float32 exactly and
bfloat16 sums would be slow and coarse; bfloat16 on an accelerator.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from accelerate.utils import get_max_memory
from jinja2 import TemplateError
from torch import Tensor

from merging.cores import cores as allowed
from merging.errors import UserError

if TYPE_CHECKING:  # seconds to import, which a look at kept scores need not wait for
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 100
_SMALL = 50e6  # parameters


def dtype_on(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def free_memory(device: torch.device) -> int:
    """Bytes that are free there."""
    free = get_max_memory()
    on_device = free.get(device.index or 0, free.get(device.type, free["cpu"])) if device.type != "cpu" else free["cpu"]
    return int(on_device)


def cores() -> int:
    """Cores that this process may use; a container's share where it is told."""
    told = os.environ.get("OMP_NUM_THREADS") or os.environ.get("CPU_CORES", "")
    return max(1, min(int(told), allowed())) if told.isdigit() else allowed()


def use_cores(model: "PreTrainedModel", n_streams: int = 1) -> None:
    """For a thread that runs a model beside n_streams - 1 others: together they use the cores there are.

    A small model takes one: splitting its products made 900 answers 18 times slower on a busy machine.
    """
    torch.set_num_threads(1 if model.num_parameters() < _SMALL else max(1, cores() // n_streams))


class _PinnedNoise:
    """Adds Gumbel noise of its own generator, so that the largest score is a draw from softmax(scores / temperature).

    torch's sampler would use one generator for all threads. Every model meets the same noise: equal models answer
    equally, and a small change of weights changes little.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.rand(scores.shape, generator=self._random, dtype=torch.float64).clamp_min(1e-300)
        return scores / self._temperature - torch.log(-torch.log(uniform)).to(scores)


class _Watch:
    """What `generate` calls a streamer and a stopping criterion in one: each new token out, a wish to stop in."""

    def __init__(self, put: Callable[[int], None], stopped: Callable[[], bool]) -> None:
        self._put, self._stopped = put, stopped
        self._prompt = True

    def put(self, value: Tensor) -> None:
        if not self._prompt:  # the first call brings the prompt
            self._put(int(value.reshape(-1)[0]))
        self._prompt = False

    def end(self) -> None:
        pass

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.full((len(input_ids),), self._stopped(), dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def stream(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    put: Callable[[int], None],
    stopped: Callable[[], bool],
) -> None:
    """One answer, token by token to `put`, ending tokens included. Temperature 0 is greedy."""
    settings = greedy(model, tokenizer, max_new_tokens)
    ids = torch.tensor([list(prompt)], device=model.device)
    watch = _Watch(put, stopped)
    model.generate(  # pyright: ignore[reportCallIssue]
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=settings,
        logits_processor=[_PinnedNoise(temperature, seed)] if temperature > 0 else [],  # pyright: ignore[reportArgumentType]
        stopping_criteria=[watch],  # pyright: ignore[reportArgumentType]
        streamer=watch,  # pyright: ignore[reportArgumentType]
    )


@torch.inference_mode()
def answer_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: Sequence[Sequence[Mapping[str, str]]],
    *,
    max_new_tokens: int = 48,
) -> list[str]:
    """Greedy answers, in the order asked. Prompts of like length share a batch, so little is spent on padding."""
    use_cores(model)
    prompts = [encode(tokenizer, *render(tokenizer, turns)) for turns in conversations]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    settings = greedy(model, tokenizer, max_new_tokens)
    answers = [""] * len(prompts)
    for at in range(0, len(order), _BATCH):
        rows = order[at : at + _BATCH]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.full((len(rows), width), settings.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(rows):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        out = model.generate(  # pyright: ignore[reportCallIssue]
            ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
        )
        texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        for i, text in zip(rows, texts, strict=True):
            answers[i] = text.strip()
    return answers


def render(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]], model: str = ""
) -> tuple[str, bool]:
    """The prompt as text, and whether it is in plain lines because the model has no chat template."""
    plain_messages = [dict(message) for message in messages]
    if not tokenizer.chat_template:
        lines = [f"{message['role'].capitalize()}: {message['content']}" for message in plain_messages]
        return "\n".join([*lines, "Assistant:"]), True
    try:
        return str(tokenizer.apply_chat_template(plain_messages, tokenize=False, add_generation_prompt=True)), False
    except (TemplateError, ValueError, TypeError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError("E_TEMPLATE", f"its chat template refuses the conversation: {reason}", where=model) from error


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, plain: bool) -> list[int]:
    """Token ids; only plain text still needs the token that begins a text, a template writes its own."""
    return tokenizer(text, add_special_tokens=plain)["input_ids"]  # pyright: ignore[reportReturnType]


def greedy(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_new_tokens: int) -> "GenerationConfig":
    """The model's own end tokens come first: chat models often end a turn with more tokens than the tokenizer names."""
    from transformers import GenerationConfig

    end = model.generation_config.eos_token_id if model.generation_config else None
    end = tokenizer.eos_token_id if end is None else end
    ends = end if isinstance(end, list) else [] if end is None else [end]
    pad = tokenizer.pad_token_id
    pad = pad if isinstance(pad, int) else (ends or [0])[0]
    return GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends or None, pad_token_id=pad)
