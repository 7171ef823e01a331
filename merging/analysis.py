"""What is measured of deltas for the pictures: conflicts between experts, spectra, tails."""

import math

import numpy as np
import torch
from torch import Tensor

from merging.decompose import SVD
from merging.look import Spectrum, Tail
from merging.ops import outlier_threshold, sparsity


def sign_conflict(a: Tensor, b: Tensor) -> float:
    """Share of the entries that both experts moved where they moved in opposite directions; nan if there is none."""
    product = a * b
    both = int((product != 0).sum())
    return int((product < 0).sum()) / both if both else math.nan


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two flattened tensors; nan where one is 0."""
    norms = float(a.norm() * b.norm())
    return float((a * b).sum()) / norms if norms > 0 else math.nan


def subspace_overlap(a: SVD, b: SVD) -> float:
    """Mean squared cosine between the leading subspaces, left and right averaged: 0 apart, 1 the same; nan if empty."""
    k = min(len(a.s), len(b.s))
    if k == 0:
        return math.nan
    left, right = (a.u[:, :k].T @ b.u[:, :k]), (a.v[:, :k].T @ b.v[:, :k])
    return float(left.square().sum() + right.square().sum()) / (2 * k)


def interference(a: SVD, b: SVD) -> float:
    """Singular task interference `|(U^T U - I) S (V^T V - I)|_1 / sum S` of two deltas (TSV, 2412.00081, eq. 5).

    0 where the two use orthogonal directions; nan if both are 0.
    """
    s = torch.cat([a.s, b.s])
    if float(s.sum()) == 0:
        return math.nan
    u, v = torch.cat([a.u, b.u], 1), torch.cat([a.v, b.v], 1)
    off_u, off_v = u.T @ u, v.T @ v
    off_u.diagonal().sub_(1)
    off_v.diagonal().sub_(1)
    return float(((off_u * s) @ off_v).abs().sum() / s.sum())


def spectrum(model: str, values: Tensor, kept: int | None) -> Spectrum:
    """Summary of singular values (descending)."""
    shown = values.float().cpu().numpy()
    (stable_rank,), (half_energy,) = (found.tolist() for found in concentration(shown[None]))
    return Spectrum(model, shown, kept, stable_rank, half_energy)


def concentration(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stable rank of each row of singular values (descending; at the end any number of 0), and how many of them hold
    half of the squared norm; 0 where all are 0.
    """
    energy = np.square(values, dtype=np.float64).cumsum(1)
    first, total = (energy[:, at] if energy.shape[1] else np.zeros(len(energy)) for at in (0, -1))
    half = (energy < total[:, None] / 2 * (1 - 1e-12)).sum(1) + 1
    stable = np.divide(total, first, out=np.zeros_like(total), where=total > 0)
    return stable, np.where(total > 0, half, 0)


def tail(model: str, delta: Tensor, base_norm: float, *, kappa: float, eta: float) -> Tail:
    """How heavy-tailed and how sparse a delta is, at the thresholds the sliders show."""
    size = delta.abs()
    theta = outlier_threshold(size, kappa)
    beyond = size > theta
    mass = float(size.sum())
    return Tail(
        model,
        threshold=float(theta.max()),
        entries=float(beyond.float().mean()),
        mass=float(size[beyond].sum()) / mass if mass > 0 else 0.0,
        sparsity=sparsity(delta, eta),
        norm_ratio=float(delta.norm()) / base_norm if base_norm > 0 else math.inf,
    )
