"""A device that is not there: its tensors lie on the CPU, and whatever would fail on a real one fails here.

Numbers are the CPU's. A tensor on it that meets one on the CPU in an operation, numpy or LAPACK is an error. torch's
"meta" lends the name, the only device besides the CPU that every build of torch knows; inside `pretend_device()` it
holds real numbers.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
aten = torch.ops.aten
ACROSS = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}  # indices may lie on the CPU

READS = {Tensor.tolist, Tensor.item, Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__}
READS |= {Tensor.untyped_storage}


class OnDevice(Tensor):
    """A tensor on the device; `lies` is where its numbers are."""

    lies: Tensor

    @staticmethod
    def __new__(cls, lies: Tensor) -> "OnDevice":
        made = Tensor._make_wrapper_subclass(
            cls, lies.size(), strides=lies.stride(), storage_offset=lies.storage_offset(), dtype=lies.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.lies = lies
        return made

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            return func(args[0].lies)
        if func in (Tensor.numpy, Tensor.data_ptr, Tensor.__array__):
            raise TypeError(f"{func.__name__} of a tensor on the device")
        if func == Tensor.data.__set__:  # pyright: ignore[reportAttributeAccessIssue]
            args[0].lies = args[1].lies
            return None
        if func is Tensor.__getitem__:  # meta's own way of indexing by a list looks at no numbers
            return OnDevice(args[0].lies[tree_map(_plain, args[1])])
        with torch._C.DisableTorchFunctionSubclass():  # what comes back keeps its own class
            return func(*args, **kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """torch.tensor goes past the other mode."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == DEVICE:
            return OnDevice(torch.tensor(*args, **kwargs | {"device": "cpu"}))
        return func(*args, **kwargs)


def _plain(x: Any) -> Any:
    return x.lies if isinstance(x, OnDevice) else x


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if torch.is_inference_mode_enabled() and func._can_decompose():  # elsewhere these come in their parts
        with _Mode():
            return func.decompose(*args, **kwargs)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, OnDevice)]
    if there and func not in ACROSS | INDEXED:
        strangers = [tuple(x.shape) for x in tensors if not isinstance(x, OnDevice) and x.dim() > 0]
        if strangers:
            raise RuntimeError(f"{func} of a tensor on the device and one on the CPU, shape {strangers[0]}")
    named = kwargs.get("device")
    to_device = torch.device(named).type == DEVICE if named is not None else bool(there)
    if func is aten.copy_.default:
        to_device = isinstance(args[0], OnDevice)
    plain_args, plain = tree_map(_plain, (args, kwargs))
    if named is not None:
        plain["device"] = torch.device("cpu")
    found = func(*plain_args, **plain)
    if not to_device:
        return found
    same = {id(x.lies): x for x in there}  # what an operation in place gives back
    return tree_map(lambda x: (same[id(x)] if id(x) in same else OnDevice(x)) if isinstance(x, Tensor) else x, found)


@contextmanager
def pretend_device() -> Iterator[str]:
    """The device's name, for as long as it is there: for this thread."""
    with _Mode(), _Literals():
        yield DEVICE


class PretendingPool(ThreadPoolExecutor):
    """Whose threads have the device too, for as long as they live."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers, initializer=_enter)


def _enter() -> None:
    _Mode().__enter__()
    _Literals().__enter__()
