"""Runs models: prompts in, answers out. The only file that knows devices."""

from collections.abc import Mapping, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 100


@torch.inference_mode()
def answer_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Mapping[str, str]]],
    *,
    max_new_tokens: int = 48,
) -> list[str]:
    """Greedy answers, in the order asked. Prompts of like length share a batch, so little is spent on padding."""
    prompts = [
        tokenizer.apply_chat_template([dict(turn) for turn in turns], add_generation_prompt=True, return_dict=False)
        for turns in conversations
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    end, pad = _end_and_pad(model, tokenizer)
    greedy = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=end, pad_token_id=pad)
    answers = [""] * len(prompts)
    for at in range(0, len(order), _BATCH):
        rows = order[at : at + _BATCH]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.full((len(rows), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(rows):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        out = model.generate(  # pyright: ignore[reportCallIssue]
            ids.to(model.device), attention_mask=mask.to(model.device), generation_config=greedy
        )
        texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        for i, text in zip(rows, texts, strict=True):
            answers[i] = text.strip()
    return answers


def _end_and_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], int]:
    """The model's own end tokens come first: chat models often end a turn with more tokens than the tokenizer names."""
    end = model.generation_config.eos_token_id if model.generation_config else None
    end = tokenizer.eos_token_id if end is None else end
    ends: list[int] = end if isinstance(end, list) else [end]  # pyright: ignore[reportAssignmentType]
    pad = tokenizer.pad_token_id
    return ends, pad if isinstance(pad, int) else ends[0]
