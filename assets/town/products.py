"""Matrix products of bfloat16 numbers on processors that have no fast ones."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default)


class InFloat32(TorchDispatchMode):
    """Inside it they are summed in float32 and rounded once, as fast ones do. Without AVX-512 a step of Town's training
    takes a sixth of the time so.
    """

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _PRODUCTS and args[-1].dtype == torch.bfloat16:
            wide = [one.float() if isinstance(one, Tensor) else one for one in args]
            return func(*wide, **(kwargs or {})).bfloat16()
        return func(*args, **(kwargs or {}))


def products() -> AbstractContextManager[object]:
    """The faster way here."""
    return nullcontext() if torch.backends.cpu.get_cpu_capability() == "AVX512" else InFloat32()
