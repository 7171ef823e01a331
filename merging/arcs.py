"""Arcs on the sphere: what the methods that follow directions instead of straight lines share."""

import torch
from torch import Tensor

from merging.ops import column


def unit(x: Tensor) -> Tensor:
    """Each vector of the last axis at length 1; a zero vector stays zero."""
    norm = x.norm(dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, 1.0)


def arc(a: Tensor, b: Tensor, t: float, dim: int = -1) -> Tensor:
    """The point at `t` (0 is `a`, 1 is `b`) on the arc between the vectors along `dim`, lengths as they are.

    A straight line where the sine of the angle lies below 1e-8; a zero vector stands at a right angle to all others.
    Formula: Shoemake, SIGGRAPH 1985.
    """
    first, second = a.movedim(dim, -1), b.movedim(dim, -1)
    angle = torch.arccos((unit(first) * unit(second)).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    straight = sine < 1e-8  # also just below 0, at a right-about turn
    bent = (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.where(straight, 1.0, sine)
    return torch.where(straight, (1 - t) * first + t * second, bent).movedim(-1, dim)


def karcher_direction(directions: Tensor, max_iter: int, tol: float) -> Tensor:
    """The unit vector (n,) with the least squared angle to the unit vectors (T, n), T at least 1.

    Starts at their normalised mean (at the first one if that is 0), moves along the mean of the tangents, and stops
    when a step is not longer than `tol`.
    """
    mean = directions.mean(0)
    point = mean / mean.norm() if mean.norm() > 0 else directions[0]
    for _ in range(max_iter):
        apart = directions - point  # angles by chords: a cosine near 1 has lost them
        chord = apart.norm(dim=1)
        angle = 2 * torch.atan2(chord, (directions + point).norm(dim=1))
        sine = torch.sin(angle)
        pull = torch.where(sine > 1e-8, angle / torch.where(sine > 1e-8, sine, 1.0), 0.0)
        tangent = (column(pull, directions) * (apart + column(chord.square() / 2, directions) * point)).mean(0)
        step = tangent.norm()
        if step <= tol:
            break
        point = torch.cos(step) * point + torch.sin(step) * tangent / step
        point = point / point.norm()
    return point
