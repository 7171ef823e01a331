import math
from typing import Annotated, Any

import torch
from torch import Tensor

from merging.decompose import svd
from merging.method import Lambda, Number, Paper, Switch, merge_method
from merging.ops import weighted_sum

ENERGY = 0.9  # share of the alignment's squared singular values that the projector spans


def alignments(deltas: Tensor, *, safe: Tensor, unaligned: Tensor, projector: bool, **_: Any) -> Tensor:
    """rho of each expert's delta, (T,) float64; NaN of those that are never gated, of all where nothing is."""
    guards, before = (safe >= 0.5) & (unaligned < 0.5), unaligned >= 0.5
    found = torch.full((len(deltas),), math.nan, dtype=torch.float64)
    if deltas.dim() == 3 and guards.any():
        direction = deltas[before if before.any() else guards].mean(0)
        leading = _leading(direction) if projector else None
        for t in (~guards & ~before).nonzero().flatten().tolist():
            found[t] = alignment(deltas[t], direction, leading)
    return found


@merge_method(
    title="Safe gate (SafeMERGE)",
    paper=Paper("SafeMERGE: Preserving Safety Alignment", "2503.17239", 2025),
    gate=alignments,
    note="Generalised from LoRA to any delta.",
)
def safe_gate(
    deltas: Tensor,
    weights: Tensor,
    *,
    tau: Annotated[
        float, Number(0.0, 1.0, 0.05, 0.35, "Gate τ", "Deltas aligned less are gated.", strict=False, first=True)
    ],
    share: Annotated[
        float, Number(0.0, 1.0, 0.05, 0.2, "Safe share", "How much of the safe expert goes in.", first=True)
    ],
    lambda_: Annotated[float, Lambda(screen=0.5)],
    projector: Annotated[bool, Switch(False, "Projector", "Compares directions without their strength.", screen=True)],
    safe: Annotated[Tensor, Number(0.0, 1.0, 1.0, 0.0, "Safe", "1: this is the safe expert.", per_expert=True)],
    unaligned: Annotated[
        Tensor, Number(0.0, 1.0, 1.0, 0.0, "Unaligned", "1: the base before alignment.", per_expert=True)
    ],
) -> Tensor:
    """Mixes the safe expert into deltas that leave the alignment directions, then adds all deltas.

    Per matrix: `rho = cos(C D_t, D_t)` with `C = D_al D_al^T`, or with `projector` `||P D_t|| / ||D_t||`, P the leading
    directions with 90 % of D_al's energy; rho < tau makes `D_t = (1 - share) D_t + share D_s`. D_s: mean of the
    experts marked `safe`, which are not gated. D_al: the base minus the models marked `unaligned`, which are not
    merged; with none D_al = D_s (ours). With no safe expert, a zero D_al, or no matrix: task arithmetic. How large
    rho is depends on rank and width: choose tau by looking at several matrices.
    """
    merged = unaligned < 0.5
    rho = alignments(deltas, safe=safe, unaligned=unaligned, projector=projector)
    gated = deltas
    if (rho < tau).any():
        safe_delta = deltas[(safe >= 0.5) & merged].mean(0)
        mixed = (1 - share) * deltas + share * safe_delta
        gated = torch.where((rho < tau).to(deltas.device).view(-1, 1, 1), mixed, deltas)
    return lambda_ * weighted_sum(gated[merged], weights[merged], normalize=False)


def alignment(delta: Tensor, direction: Tensor, leading: Tensor | None = None) -> float:
    """rho of a delta (m, n): 1 inside the alignment directions, 0 outside; 1 where one of the two is 0.

    direction: D_al (m, n), of either sign. leading: orthonormal columns (m, k) of its projector, for that form.
    """
    norm = float(delta.norm())
    if norm == 0 or not direction.any():
        return 1.0
    if leading is not None:
        return float((leading.T @ delta).norm()) / norm
    unit = direction / direction.norm()
    inside = unit.T @ delta
    through = float((unit @ inside).norm())
    return float(inside.square().sum()) / (through * norm) if through > 0 else 0.0


def _leading(direction: Tensor) -> Tensor:
    found = svd(direction)
    energy = found.s.double().square().cumsum(0)
    return found.u[:, : int((energy < ENERGY * energy[-1]).sum()) + 1]
