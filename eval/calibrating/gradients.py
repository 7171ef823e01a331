"""Gradients of an expert's own text, weight by weight: Fisher information and what is lost without a weight.

A backward pass through the whole model for each text: beside the weights, memory holds their gradients and two sums.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from merging.calibration import BASE_SALIENCY, FISHER, SALIENCY


def gradients(
    module: PreTrainedModel, expert: Mapping[str, Tensor], base: Mapping[str, Tensor], texts: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """What a calibration keeps of one expert, for the tensors by name; texts are token ids, each of two or more."""
    squares, saliency = _sums(module, expert, texts)
    _, below = _sums(module, base, texts)
    mean = float(sum(one.double().sum() for one in squares.values())) / sum(one.numel() for one in squares.values())
    return {
        **{FISHER + name: one / max(mean, 1e-38) for name, one in squares.items()},
        **{SALIENCY + name: one for name, one in saliency.items()},
        **{BASE_SALIENCY + name: one for name, one in below.items()},
    }


def _sums(
    module: PreTrainedModel, state: Mapping[str, Tensor], texts: Sequence[Sequence[int]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Means over the texts of `g^2` and `|w g|`, g the gradient of the mean loss per token; float32 on the CPU."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in state.items()}
    squares, saliency = ({name: torch.zeros_like(v, dtype=torch.float32) for name, v in leaves.items()} for _ in "gw")
    device = next(iter(leaves.values())).device
    for text in texts:
        ids = torch.tensor([text], device=device)
        logits = functional_call(module, leaves, (), {"input_ids": ids, "use_cache": False}).logits
        loss = nn.functional.cross_entropy(logits[0, :-1].float(), ids[0, 1:])
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for (name, weight), gradient in zip(leaves.items(), found, strict=True):
            if gradient is not None:
                squares[name] += gradient.float().square() / len(texts)
                saliency[name] += (weight.detach().float() * gradient.float()).abs() / len(texts)
    return {n: s.cpu() for n, s in squares.items()}, {n: s.cpu() for n, s in saliency.items()}
