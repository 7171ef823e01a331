"""SMILE: the base, and beside each of its matrices the experts' strongest directions, chosen token by token.

Tang et al. 2024, arXiv 2408.10174: `y = W x + sum_t p_t U_t diag(s_t) V_t^T x`, where U_t, s_t, V_t are the leading
triplets of expert t's delta and p is the softmax of the gates `|V_t^T x|`. Only matrices inside the layers are routed:
biases, norms, embedding and head are the base's.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from eval.running.chat import Mixing
from eval.running.side_path import readers, trial, twin
from merging.decompose import SVD
from merging.errors import UserError

Triplets = Mapping[str, Sequence[SVD]]  # of every expert, by tensor


class Branches:
    """What the experts add to one matrix.

    near (n, T K) are the directions V of all T experts, far (T k, m) their U times s; missing ones are 0.
    """

    def __init__(self, parts: Sequence[SVD], mixing: Mixing, like: Tensor, *, transposed: bool = False) -> None:
        parts = [SVD(p.v, p.s, p.u) if transposed else p for p in parts]
        self.mixing, self.n = mixing, len(parts)
        self.wide = max(len(p.s) for p in parts)
        self.rank = min(mixing.rank, self.wide)
        self.near = like.new_zeros(self.n, len(parts[0].v), self.wide)
        far = like.new_zeros(self.n, self.rank, len(parts[0].u))
        for t, part in enumerate(parts):
            real = int((part.s > 0).sum())  # an expert that changed nothing here has no directions
            kept = min(real, self.rank)
            self.near[t, :, :real] = part.v[:, :real]
            far[t, :kept] = (part.u[:, :kept] * part.s[:kept]).T
        self.near = self.near.transpose(0, 1).flatten(1).contiguous()
        self.far = far.flatten(0, 1)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For inputs (..., n): what is added (..., m), the experts' weights (..., T), the gates (..., T)."""
        inside = (x @ self.near).unflatten(-1, (self.n, self.wide))
        gates = inside[..., : self.mixing.gate_rank].norm(dim=-1)
        weights = gates.softmax(-1)
        if self.mixing.top < self.n:
            best = weights.topk(self.mixing.top)
            weights = torch.zeros_like(weights).scatter(-1, best.indices, best.values)
            weights = weights / weights.sum(-1, keepdim=True)
        return (inside[..., : self.rank] * weights.unsqueeze(-1)).flatten(-2) @ self.far, weights, gates


class Mixture:
    """`module` answers as the mixture; its tensors are the base's own.

    left_out: matrices whose layers cannot be followed, which stay the base's.
    """

    def __init__(self, base: PreTrainedModel, triplets: Triplets, mixing: Mixing) -> None:
        self.module, self.mixing = twin(base), mixing
        layers, own = readers(self.module, triplets), self.module.state_dict(keep_vars=True)
        self.left_out = len(triplets) - len(layers)
        self._beside = {name: _Beside(found, triplets[name], mixing, own[name]) for name, found in layers.items()}
        trial(self.module)
        if all(beside.seen is None for beside in self._beside.values()):
            raise UserError(
                "E_MIXTURE",
                f"The layers of {type(base).__name__} cannot be followed, so nothing can stand beside them.",
                do="Switch the mixture off.",
            )

    def tensors(self) -> Iterator[Tensor]:
        """What it has in memory, the base's own tensors among them."""
        yield from self.module.parameters()
        for beside in self._beside.values():
            yield from (beside.branches.near, beside.branches.far)

    def choice(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Weights and gates of each expert at the last token read, the mean over the matrices."""
        seen = torch.stack([beside.seen for beside in self._beside.values() if beside.seen is not None]).mean(0)
        weights, gates = seen.tolist()
        return tuple(weights), tuple(gates)


class _Beside:
    """The branches beside the layers of one tensor. seen (2, T): weights and gates at the last token read."""

    seen: Tensor | None = None

    def __init__(self, layers: Sequence[nn.Module], parts: Sequence[SVD], mixing: Mixing, weight: Tensor) -> None:
        self.branches = Branches(parts, mixing, weight.detach(), transposed=type(layers[0]) is Conv1D)
        for layer in layers:
            layer.register_forward_hook(self)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added, weights, gates = self.branches(inputs[0])
        self.seen = torch.stack([weights.reshape(-1, weights.shape[-1])[-1], gates.reshape(-1, gates.shape[-1])[-1]])
        return output.add_(added)
