"""How strong each expert's part of a merge is to be, column by column: learned from what the experts say themselves.

AdaMerging's coefficients (2310.02575), for each column of a tensor instead of each layer and with another aim: the
merge is to answer an expert's own texts as that expert does. Memory holds the base, the experts and their parts of the
merge, all whole.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from merging.compute import merged_delta, read_deltas
from merging.engine import one_thread_a_matrix
from merging.pieces import merged_tensor
from merging.plan import Plan
from merging.spectral import Factors, dense

RATE = 0.08  # of the first step; it falls to 0 in a line
_BATCH = 16  # texts of each expert in a step
_STEPS = 120  # at least
_PASSES = 7.5  # over all texts, at least

State = Mapping[str, Tensor]
Gains = dict[str, Tensor]  # (T, n) of a tensor whose last axis has n entries
Spoken = tuple[Sequence[int], int]  # token ids, and the first that is an answer


def steps_for(texts: int) -> int:
    """How many steps are learned from so many texts of each expert."""
    return max(_STEPS, round(_PASSES * texts / _BATCH))


def learn(
    module: PreTrainedModel,
    below: State,
    parts: State,
    experts: Sequence[State],
    texts: Sequence[Sequence[Spoken]],
    steps: int,
) -> Iterator[Gains]:
    """Gains g from 1 on, by Adam, for the merge `below + sum_t parts_t diag(g_t)`: those after each step.

    The loss is the mean over the experts of `KL(expert || merge)` a token of that expert's answers.
    """
    gains = {name: part.new_ones(len(part), part.shape[-1], dtype=torch.float32) for name, part in parts.items()}
    for found in gains.values():
        found.requires_grad_()
    adam = torch.optim.Adam(gains.values(), lr=RATE, betas=(0.9, 0.99))
    turns = [_turns(own, t) for t, own in enumerate(texts)]
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        added = {name: strengthened(part, gains[name]) for name, part in parts.items()}
        merge = {**below, **{name: (below[name] + more).to(below[name].dtype) for name, more in added.items()}}
        adam.zero_grad()
        apart = [divergence(module, expert, merge, next(turn)) for expert, turn in zip(experts, turns, strict=True)]
        torch.stack(apart).mean().backward()
        adam.step()
        yield {name: found.detach() for name, found in gains.items()}


def strengthened(parts: Tensor, gains: Tensor) -> Tensor:
    """`sum_t parts_t diag(g_t)` in float32, of parts (T, ..., n) and gains (T, n)."""
    first, *others = (part.float() * gain for part, gain in zip(parts, gains, strict=True))
    return sum(others, first)


def parts_of(plan: Plan, names: Sequence[str]) -> tuple[State, State]:
    """`below` and `parts` for `learn`, of a method that is linear in the deltas. A part is what the method makes where
    all deltas but one expert's are 0. A tensor that it does not make has none, and stands in `below` as merged.
    """
    below, parts = {}, {}
    with one_thread_a_matrix():
        for tensor in map(plan.tensor, names):
            if not tensor.is_merged:
                below[tensor.name] = merged_tensor(plan, tensor, None)
                continue
            below[tensor.name], factors = read_deltas(plan, tensor)
            alone = torch.eye(len(factors.deltas)).view(len(factors.deltas), -1, *[1] * (factors.deltas.dim() - 1))
            found = [merged_delta(plan, tensor, below[tensor.name], Factors(one * factors.deltas)) for one in alone]
            parts[tensor.name] = torch.stack([*map(dense, found)])
    return below, parts


def divergence(module: PreTrainedModel, expert: State, merge: State, texts: Sequence[Spoken]) -> Tensor:
    """`KL(expert || merge)`, the mean over all tokens of the answers."""
    size = max(len(ids) for ids, _ in texts), next(iter(merge.values())).device
    ids = torch.zeros(len(texts), size[0], dtype=torch.long, device=size[1])
    real, said = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (own, start) in enumerate(texts):
        ids[row, : len(own)] = torch.tensor(own)
        real[row, : len(own)] = 1
        said[row, max(0, start - 1) : len(own) - 1] = True  # what is read there tells the next token
    call = {"input_ids": ids, "attention_mask": real, "use_cache": False}

    def words(state: State) -> Tensor:
        return functional_call(module, dict(state), (), call).logits[said].float().log_softmax(-1)

    with torch.no_grad():
        wanted = words(expert)
    return nn.functional.kl_div(words(merge), wanted, reduction="batchmean", log_target=True)


def _turns(texts: Sequence[Spoken], seed: int) -> Iterator[list[Spoken]]:
    """Some of the texts at a time, all before any comes again."""
    draw, n = random.Random(seed), min(_BATCH, len(texts))
    while True:
        order = draw.sample(range(len(texts)), len(texts))
        for at in range(0, len(order) - n + 1, n):
            yield [texts[i] for i in order[at : at + n]]
