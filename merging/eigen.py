"""Leading eigenvectors of symmetric matrices: LAPACK by hand, because neither torch nor scipy finds only some of them
without either finding all, or going through slow inverse iteration while holding Python's lock.

Tridiagonal form (sytrd), its vectors by divide and conquer (stedc), or only the wanted ones, where they are few
(stemr); and those turned back (ormtr).
"""

import ctypes
import importlib
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

BLOCK = 64  # columns that LAPACK works on together
FEW = 1 / 6  # of all vectors; up to so many stemr is the faster of the two
STRIPS = 4  # that a Gram matrix is made in


def gram(a: Tensor) -> Tensor:
    """`a^T a` (n, n) for the functions below, which read its upper half: the rest is left out, 3/8 of the work."""
    n = a.shape[1]
    out = a.new_zeros(n, n)
    for first in range(0, n, -(-n // STRIPS)):
        rows = a[:, first : first + -(-n // STRIPS)]
        torch.mm(rows.T, a[:, first:], out=out[first : first + rows.shape[1], first:])
    return out


def top_eigen(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues of symmetric `a` (n, n), descending, and their eigenvectors (n, k).

    Only the upper half of `a` is read. One thread, whatever torch was told: equal bytes from run to run. `a` is
    overwritten.
    """
    if a.device.type != "cpu":
        return top_by_torch(a, k)
    n = len(a)
    a = a.contiguous()  # row by row, so that its upper half is LAPACK's lower one
    diagonal, off, tau, work = a.new_empty(n), a.new_empty(n), a.new_empty(n), a.new_empty(BLOCK * n)
    _routine("sytrd", a.dtype)("L", n, a, n, diagonal, off, tau, work, len(work))
    values, leading = (_few(diagonal, off, k) if k <= FEW * n else None) or _all(diagonal, off, k)
    _routine("ormtr", a.dtype)("L", "L", "N", n, k, a, n, tau, leading, n, work, len(work))
    return values.flip(0), leading.flip(0).T


def top_by_torch(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same on any device, which finds all eigenvectors first."""
    values, vectors = torch.linalg.eigh(a, UPLO="U")
    return values.flip(0)[:k], vectors.flip(1)[:, :k].contiguous()


def _all(diagonal: Tensor, off: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues of a tridiagonal matrix, ascending, and a row of (k, n) for each vector."""
    n = len(diagonal)
    values, z = diagonal.clone(), diagonal.new_empty(n, n)
    work, whole = diagonal.new_empty(1 + 4 * n + n * n), torch.empty(3 + 5 * n, dtype=torch.int32)
    conquer = _routine("stedc", diagonal.dtype)
    conquer("I", n, values, off.clone(), z, n, work, len(work), whole, len(whole))
    return values[n - k :], z[n - k :]


def _few(diagonal: Tensor, off: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """The same for few vectors; None in the rare case that LAPACK finds others."""
    n, unused = len(diagonal), diagonal.new_zeros(1)
    values, z = diagonal.new_empty(n), diagonal.new_empty(k, n)
    found, relative = torch.zeros(1, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    support, work = torch.empty(2 * k, dtype=torch.int32), diagonal.new_empty(18 * n)
    whole = torch.empty(10 * n, dtype=torch.int32)
    try:
        _routine("stemr", diagonal.dtype)(
            "V", "I", n, diagonal.clone(), off.clone(), unused, unused, n - k + 1, n, found, values, z, n, k, support,
            relative, work, len(work), whole, len(whole),
        )  # fmt: skip
    except ArithmeticError:
        return None
    return (values[:k], 1.5 * z - 0.5 * (z @ z.T) @ z) if int(found) == k else None  # made orthogonal to rounding


def eigenvalues(a: Tensor) -> Tensor:
    """Eigenvalues (n,) of symmetric `a` (n, n), descending, from its upper half; on one thread. `a` is overwritten."""
    if a.device.type != "cpu":
        return torch.linalg.eigvalsh(a, UPLO="U").flip(0)
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
