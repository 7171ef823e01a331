"""Whole answers from one expert each: what the base makes of a question says which expert it belongs to.

A ridge classifier on the base's hidden state, fitted on prompts of each expert's own skill
(`eval/calibrating/texts.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eval.running.layers import batches
from eval.running.runtime import encode, render, use_cores

if TYPE_CHECKING:
    from eval.running.models import Model

Conversation = Sequence[Mapping[str, str]]
_DEPTH = 2 / 3  # of the layers
_RIDGE = 0.1  # times the mean diagonal


@dataclass(frozen=True)
class Route:
    """The expert that answers, and how sure that is: its share of the classifier's positive scores, 0 to 1.

    shares: those of all experts, in order; all 0 where no score is positive.
    """

    expert: str
    confidence: float
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Router:
    """`mean` (d,) and `spread` (d,) of the hidden states it was fitted on, `weights` (d + 1, experts)."""

    base: "Model"
    experts: tuple[str, ...]
    mean: Tensor
    spread: Tensor
    weights: Tensor

    def routes(self, conversations: Sequence[Conversation]) -> list[Route]:
        """For each question the expert that it belongs to."""
        scores = _with_one((hidden(self.base, conversations) - self.mean) / self.spread) @ self.weights
        shares = scores.clamp(min=0)
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-9)
        best = scores.argmax(1)
        rows = zip(best.tolist(), shares.tolist(), strict=True)
        return [Route(self.experts[i], row[i], tuple(row)) for i, row in rows]


def fit_router(base: "Model", prompts: Mapping[str, Sequence[Conversation]]) -> Router:
    """Least squares with a ridge on the indicator of the expert; experts count alike."""
    found = {expert: hidden(base, own) for expert, own in prompts.items()}
    x = torch.cat(list(found.values()))
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    y = torch.cat(
        [torch.eye(len(found), dtype=x.dtype)[t].expand(len(own), -1) for t, own in enumerate(found.values())]
    )
    each = torch.cat([torch.full((len(own), 1), 1 / len(own), dtype=x.dtype) for own in found.values()])
    rows = _with_one((x - mean) / spread)
    gram = rows.T @ (each * rows)
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=x.dtype)
    return Router(base, tuple(found), mean, spread, torch.linalg.solve(gram, rows.T @ (each * y)))


@torch.inference_mode()
def hidden(base: "Model", conversations: Sequence[Conversation]) -> Tensor:
    """(questions, d) float64 on the CPU: the mean over a question's tokens after two thirds of the layers."""
    use_cores(base.module)
    ids = [encode(base.tokenizer, *render(base.tokenizer, turns)) for turns in conversations]
    after = max(1, round(_DEPTH * base.module.config.get_text_config().num_hidden_layers))
    found: dict[int, Tensor] = {}
    for batch in batches(ids, 0, base.module.device):
        call = {"input_ids": batch.ids, "attention_mask": batch.real.long(), "logits_to_keep": 1}
        states = base.module(**call, output_hidden_states=True).hidden_states[after]
        weight = batch.real[..., None].double()
        means = ((states.double() * weight).sum(1) / weight.sum(1)).cpu()
        found |= dict(zip(batch.places, means, strict=True))
    return torch.stack([found[i] for i in range(len(ids))])


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
