"""Arcs on the sphere: what the methods that follow directions instead of straight lines share."""

import math

import torch
from torch import Tensor


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


def karcher_point(gram: Tensor, max_iter: int, tol: float) -> Tensor:
    """The unit vector with the least squared angle to T unit vectors, T at least 1, as their coefficients (T,).

    All of the way is a combination of the vectors, so their Gram matrix (T, T), float64, tells every length and angle.
    Starts at their normalised mean (at the first one if that is shorter than 1e-6), moves along the mean of the
    tangents, and stops when a step is not longer than `tol`. A vector opposite to the point pulls nowhere.
    """

    def length(vector: Tensor) -> float:
        return math.sqrt(max(0.0, float(vector @ gram @ vector)))

    n = len(gram)
    point = gram.new_full((n,), 1 / n)
    if length(point) < 1e-6:
        point = torch.eye(n, dtype=gram.dtype)[0]
    point /= length(point)
    for _ in range(max_iter):
        cosine = (gram @ point).clamp(-1, 1)
        sine = (1 - cosine.square()).sqrt()
        turned = sine > 1e-6  # below, rounding alone tells it from 0
        pull = torch.where(turned, torch.atan2(sine, cosine) / torch.where(turned, sine, 1.0), (cosine > 0).double())
        tangent = (pull - (pull @ cosine) * point) / n
        step = length(tangent)
        if step <= tol:
            break
        point = math.cos(step) * point + math.sin(step) / step * tangent
        point /= length(point)
    return point
