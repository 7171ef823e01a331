"""Leading eigenvectors of symmetric matrices: LAPACK by hand, because neither torch nor scipy finds only some of them
without either finding all, or going through slow inverse iteration while holding Python's lock.

Tridiagonal form (sytrd), divide and conquer (stedc), and only the wanted vectors turned back (ormtr).
"""

import ctypes
import importlib
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

BLOCK = 64  # columns that LAPACK works on together


def top_eigen(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All eigenvalues (n,) of symmetric `a` (n, n), descending, and the eigenvectors (n, k) of the k largest.

    One thread, whatever torch was told: equal bytes from run to run. `a` is overwritten.
    """
    if a.device.type != "cpu":
        values, vectors = torch.linalg.eigh(a)
        return values.flip(0), vectors.flip(1)[:, :k].contiguous()
    n = len(a)
    reduce, conquer, back = (_routine(kind, a.dtype) for kind in ("sytrd", "stedc", "ormtr"))
    a = a.contiguous()  # symmetric: rows and columns are the same
    diagonal, off, tau, z = a.new_empty(n), a.new_empty(n), a.new_empty(n), a.new_empty(n, n)
    work, whole = a.new_empty(max(BLOCK * n, 1 + 4 * n + n * n)), torch.empty(3 + 5 * n, dtype=torch.int32)
    reduce("L", n, a, n, diagonal, off, tau, work, len(work))
    conquer("I", n, diagonal, off, z, n, work, len(work), whole, len(whole))
    leading = z[n - k :]  # a row is an eigenvector, in ascending order
    back("L", "L", "N", n, k, a, n, tau, leading, n, work, len(work))
    return diagonal.flip(0), leading.flip(0).T


def eigenvalues(a: Tensor) -> Tensor:
    """Eigenvalues (n,) of symmetric `a` (n, n), descending; on one thread. `a` is overwritten."""
    if a.device.type != "cpu":
        return torch.linalg.eigvalsh(a).flip(0)
    n, a = len(a), a.contiguous()
    diagonal, off, tau, work = a.new_empty(n), a.new_empty(n), a.new_empty(n), a.new_empty(BLOCK * n)
    _routine("sytrd", a.dtype)("L", n, a, n, diagonal, off, tau, work, len(work))
    _routine("sterf", a.dtype)(n, diagonal, off)
    return diagonal.flip(0)


@cache
def _routine(kind: str, dtype: torch.dtype) -> Callable[..., None]:
    """A LAPACK routine of scipy as a call that takes strings, integers and tensors, and lets other threads run."""
    import threadpoolctl

    lapack = importlib.import_module("scipy.linalg.cython_lapack")  # not needed by merges without decompositions
    threadpoolctl.threadpool_limits(1, user_api="blas")  # results change with the number of threads
    name = {torch.float32: "s", torch.float64: "d"}[dtype] + kind
    capsule = lapack.__pyx_capi__[name]
    about = ctypes.pythonapi.PyCapsule_GetName
    about.restype, about.argtypes = ctypes.c_char_p, [ctypes.py_object]
    point = ctypes.pythonapi.PyCapsule_GetPointer
    point.restype, point.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = point(capsule, about(capsule))

    def call(*arguments: str | int | Tensor) -> None:
        info = ctypes.c_int(0)
        passed = [_reference(argument) for argument in arguments]
        ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(passed) + 1))(address)(*passed, ctypes.byref(info))
        if info.value:
            raise ArithmeticError(f"{name} ended with {info.value}")

    return call


def _reference(argument: str | int | Tensor) -> object:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return ctypes.byref(ctypes.c_char(argument.encode()) if isinstance(argument, str) else ctypes.c_int(argument))
