"""How much of what each expert puts out on its own text a merge keeps: `1 - |X_t (D - D_t)^T|^2 / |X_t D_t^T|^2`.

X_t is what the matrix read while expert t read its text (`merging/calibration.py`), D the merged delta, D_t expert t's.
1 is all of it, 0 is what the base keeps; below 0 the merge is further from the expert than the base is.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.spectral import Fold


@dataclass(frozen=True, eq=False)
class Along:
    """Of a fold's directions: squares (T, R) `|X_t v_r|^2`, own (T, R) `(X_t v_r) . (X_t D_t^T u_r)`, whole (T,)
    `|X_t D_t^T|^2`, all a token in float64. u: the directions it speaks of.
    """

    u: Tensor
    squares: Tensor
    own: Tensor
    whole: Tensor


def along(fold: Fold, deltas: Tensor, inputs: Inputs) -> Along:
    """Once a fold; deltas (T, m, n). The fold's directions must be orthonormal (no `core`)."""
    assert inputs.gram
    u, v = (fold.v, fold.u) if inputs.transposed else (fold.u, fold.v)
    squares, own, whole = [], [], []
    for t, expert in enumerate(deltas):
        delta, gram = expert.mT if inputs.transposed else expert, inputs.gram(t)
        seen = gram @ v
        squares.append((seen * v).double().sum(0))
        own.append(((delta @ seen) * u).double().sum(0))
        whole.append(((delta @ gram) * delta).double().sum())
    return Along(fold.u, torch.stack(squares), torch.stack(own), torch.stack(whole))


def kept_by_fold(x: Tensor, known: Along) -> list[float]:
    """Per expert, from a fold's x (R,): `(2 sum x_r own_r - sum x_r^2 squares_r) / whole`."""
    x = x.to(known.own)
    return _shares(2 * known.own @ x - known.squares @ x.square(), known.whole)


def kept_by(delta: Tensor, deltas: Tensor, inputs: Inputs) -> list[float]:
    """The same of any merged delta (m, n)."""
    assert inputs.gram
    lost, whole = [], []
    for t, expert in enumerate(deltas):
        merged, own = (delta.mT, expert.mT) if inputs.transposed else (delta, expert)
        gram, gap = inputs.gram(t), merged - own
        lost.append(((gap @ gram) * gap).double().sum())
        whole.append(((own @ gram) * own).double().sum())
    return _shares(torch.stack(whole) - torch.stack(lost), torch.stack(whole))


def _shares(kept: Tensor, whole: Tensor) -> list[float]:
    """nan for an expert that puts out nothing of its own here."""
    return torch.where(whole > 0, kept / torch.where(whole > 0, whole, 1.0), math.nan).tolist()
