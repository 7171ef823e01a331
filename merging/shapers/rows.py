from typing import Annotated

import torch
from torch import Tensor

from merging.method import Number, Paper, Switch
from merging.shaper import shaper
from merging.spectral import Factors


@shaper(
    title="Row calibration (MAGIC)",
    paper=Paper("MAGIC: Achieving Superior Model Merging", "2512.19320", 2025),
    sees="matrix",
)
def rows(
    merged: Tensor,
    experts: Factors,
    *,
    p: Annotated[float, Number(1.0, 2.0, 1.0, 2.0, "Row norm p", "1 adds magnitudes, 2 their squares.")],
    limit: Annotated[float, Number(1.0, 10.0, 0.5, 3.0, "Row limit", "No row grows more than this.")],
    only_up: Annotated[bool, Switch(True, "Rows only up", "Rows may grow but not shrink.")],
) -> Tensor:
    """Gives each output row of the merge the mean length it has in the experts.

    `g_i = mean_t ||D_t[i]||_p / ||D[i]||_p`, at most `limit`, with `only_up` at least 1; zero rows stay. Not free of
    scale: it sets one. The code's default is p = 1; it scales too far where experts share inputs.
    """
    wanted = experts.deltas.norm(p=p, dim=2).mean(0)
    found = merged.norm(p=p, dim=1)
    gain = torch.where(found > 0, wanted / torch.where(found > 0, found, 1.0), 1.0).clamp(max=limit)
    if only_up:
        gain = gain.clamp(min=1.0)
    return merged * gain[:, None]
