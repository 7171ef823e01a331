"""The same greedy answers as `eval.running.runtime.answer_batch`, sooner: who has ended leaves the batch."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from eval.judging.judges import judge
from eval.judging.probes import ProbeSet
from eval.running.runtime import encode, render

MOST = 48  # new tokens, as Town's probes say


def passes(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probes: ProbeSet) -> list[bool]:
    """Whether each probe is passed, in their order."""
    prompts = [encode(tokenizer, *render(tokenizer, probe.conversation())) for probe in probes.probes]
    texts = answers(model, tokenizer, prompts)
    return [judge(probe, text, probes.templates).passed for probe, text in zip(probes.probes, texts, strict=True)]


@torch.inference_mode()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], size: int = 180
) -> list[str]:
    """Of a model with full attention; prompts of like length share a batch."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written: list[list[int]] = [[] for _ in prompts]
    head = model.get_output_embeddings()
    assert head is not None
    for at in range(0, len(order), size):
        going = order[at : at + size]
        width = max(len(prompts[i]) for i in going)
        ids = torch.zeros(len(going), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(going):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        places = (mask.cumsum(1) - 1).clamp_min(0)
        cache = DynamicCache(config=model.config)
        for _ in range(MOST):
            hidden = model.base_model(
                input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
            ).last_hidden_state[:, -1]
            token = head(hidden).argmax(-1)
            for i, one in zip(going, token.tolist(), strict=True):
                written[i].append(one)
            left = (token != tokenizer.eos_token_id).nonzero()[:, 0]
            if not len(left):
                break
            if len(left) < len(going):
                cache.batch_select_indices(left)
                going = [going[i] for i in left.tolist()]
                mask, places, token = mask[left], places[left], token[left]
            ids, places = token[:, None], places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(going), 1)], 1)
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
