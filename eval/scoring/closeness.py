"""How near a merge is to its sources without a word generated: both read the same text, token by token.

A broken merge shows here in seconds, long before probes are scored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Text:
    """Token ids, of which those from `start` on count (what stands before is the question)."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Closeness:
    """Of one source. KL divergences in nats a token, `forward` from the merge to the source; medians and 95 % points.

    agreement: share of tokens on which both hold the same next token most likely.
    """

    forward: float
    forward_p95: float
    backward: float
    backward_p95: float
    agreement: float
    tokens: int


@torch.inference_mode()
def log_probs(module: "PreTrainedModel", texts: Sequence[Text]) -> Tensor:
    """(tokens that count, vocabulary) float32 on the CPU: log-probabilities at each place; texts one by one."""
    found = []
    for text in texts:
        ids = torch.tensor([text.ids], device=module.device)
        logits = module(input_ids=ids).logits[0, max(0, text.start - 1) : -1]
        found.append(logits.float().log_softmax(-1).cpu())
    return torch.cat(found)


def targets(texts: Sequence[Text]) -> Tensor:
    """The tokens that `log_probs` speaks of, in its order."""
    return torch.cat([torch.tensor(text.ids[max(1, text.start) :], dtype=torch.long) for text in texts])


def perplexity(logs: Tensor, tokens: Tensor) -> float:
    """`exp` of the mean negative log-probability; inf where it overflows or a weight is not finite."""
    loss = -float(logs.gather(1, tokens[:, None]).double().mean())
    return math.exp(loss) if loss < 700 else math.inf


def closeness(merge: Tensor, source: Tensor) -> Closeness:
    """Of two models' `log_probs` on the same texts; the shorter vocabulary counts."""
    width = min(merge.shape[1], source.shape[1])
    p, q = (logs[:, :width].log_softmax(-1) for logs in (merge, source))
    forward, backward = ((a.exp() * (a - b)).sum(-1).clamp(min=0) for a, b in ((p, q), (q, p)))
    (f, f95), (b, b95) = (torch.quantile(each, torch.tensor([0.5, 0.95])).tolist() for each in (forward, backward))
    same = float((p.argmax(-1) == q.argmax(-1)).float().mean())
    return Closeness(f, f95, b, b95, same, len(p))
