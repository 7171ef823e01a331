"""A merge that answers before its weights are written: the base's module again, with folds beside its layers.

`y = W x + U (d * (V^T x))`: the base's tensors are shared and not copied, and a move of a weight changes d alone.
"""

import copy
from collections.abc import Iterable, Iterator
from weakref import ref

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from merging.folded import Folded
from merging.spectral import Fold

_KINDS = (nn.Linear, Conv1D)  # not their subclasses, which may compute something else
_TRIAL = 8  # tokens


def twin(module: PreTrainedModel) -> PreTrainedModel:
    """The same module again with parameters of its own that lie in the same memory."""
    shared: dict[int, object] = {id(own): nn.Parameter(own.detach(), False) for own in module.parameters()}
    return copy.deepcopy(module, shared | {id(buffer): buffer for buffer in module.buffers()})


def suits(base: PreTrainedModel, folded: Folded) -> bool:
    """Whether the merge's tensors are the base's one by one: some architectures stack them, some merges change them."""
    own = base.state_dict(keep_vars=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in folded.rest.items()}
    shapes |= {name: (len(fold.u), len(fold.v)) for name, fold in folded.folds.items()}
    if any(name not in own or tuple(own[name].shape) != shape for name, shape in shapes.items()):
        return False
    filled = {id(own[name]) for name in shapes}  # tied tensors are one
    return len(filled) == len(shapes) and filled == {id(tensor) for tensor in own.values()}


def readers(module: PreTrainedModel, names: Iterable[str]) -> dict[str, list[nn.Module]]:
    """The layers that multiply by these tensors; one that something else reads too, or nobody does, is left out."""
    own = module.state_dict(keep_vars=True)
    owners: dict[int, list[nn.Module]] = {}
    for layer in module.modules():
        for tensor in layer.parameters(recurse=False):
            owners.setdefault(id(tensor), []).append(layer)
    found = {name: owners.get(id(own[name]), []) for name in names if name in own}
    return {name: layers for name, layers in found.items() if layers and all(type(one) in _KINDS for one in layers)}


@torch.inference_mode()
def trial(module: PreTrainedModel) -> None:
    """A few tokens through the module, for hooks to see which layers are called."""
    words = module.config.get_text_config().vocab_size
    ids = torch.arange(_TRIAL, device=module.device).mul(max(1, words // _TRIAL)).remainder(words)
    module(input_ids=ids.unsqueeze(0), use_cache=False)


class SidePath:
    """`module` answers as the merge. Matrices whose layers cannot be followed are written: base plus fold."""

    def __init__(self, base: PreTrainedModel, folded: Folded) -> None:
        self.module = twin(base)
        self._base, self._own = base.state_dict(), self.module.state_dict(keep_vars=True)
        layers = readers(self.module, folded.folds)
        self._beside = {name: _Beside(found) for name, found in layers.items()}
        self._of, self._names = base, frozenset(folded.folds)
        self.show(folded)
        for name in self._idle():
            self._beside.pop(name).remove()
            self._write(name, folded.folds[name])

    def follows(self, base: PreTrainedModel, folded: Folded) -> bool:
        """Whether `show` can show it: the base is the same, and so are the tensors that are folds."""
        return base is self._of and self._names == folded.folds.keys()

    @torch.no_grad()
    def show(self, folded: Folded) -> None:
        """Answer as this merge from now on."""
        for name, tensor in folded.rest.items():
            self._put(name, tensor)
        for name, fold in folded.folds.items():
            if name in self._beside:
                self._beside[name].put(fold, self._own[name])
            else:
                self._write(name, fold)

    def tensors(self) -> Iterator[Tensor]:
        """What it has in memory, the base's own tensors among them."""
        yield from (*self._base.values(), *self._own.values())
        for beside in self._beside.values():
            yield from (beside.u, beside.d, beside.v)

    def _write(self, name: str, fold: Fold) -> None:
        u, x, v = (part.to(self.module.device) for part in (fold.u, fold.x, fold.v))
        self._put(name, self._base[name].float() + (u * x) @ v.T)

    def _put(self, name: str, tensor: Tensor) -> None:
        own, base = self._own[name], self._base[name]
        tensor = tensor.to(base.device, base.dtype, copy=True)
        own.data = base if torch.equal(base, tensor) else tensor

    def _idle(self) -> list[str]:
        """Some modules take a layer's weight and never call it, and of a mixture's experts a few tokens call a few."""
        trial(self.module)
        return [name for name, beside in self._beside.items() if beside.idle]


class _Beside:
    """The fold beside the layers of one tensor; more than one where layers share it."""

    u: Tensor
    d: Tensor
    v: Tensor

    def __init__(self, layers: list[nn.Module]) -> None:
        self.idle = set(layers)
        self._hooks = [layer.register_forward_hook(self) for layer in layers]
        self._of: tuple[ref[Tensor], ref[Tensor]] | None = None  # whose directions it has; not to hold them twice

    def put(self, fold: Fold, weight: Tensor) -> None:
        if self._of is None or self._of[0]() is not fold.u or self._of[1]() is not fold.v:
            self.u, self.v, self._of = fold.u.to(weight), fold.v.to(weight), (ref(fold.u), ref(fold.v))
        self.d = fold.x.to(weight)

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.idle.discard(layer)
        near, far = (self.v, self.u) if type(layer) is nn.Linear else (self.u, self.v)  # Conv1D's weight is transposed
        return output.add_(nn.functional.linear(inputs[0] @ near * self.d, far))
