"""What a method's gate did to the matrices of the merge, or how dense they stay, in words. Knows nothing of Gradio."""

import numpy as np

from merging.look import Gate, Look
from merging.plots.picture import roles
from ui.marks import finding, label

_LOWEST = 0.3  # of the matrices: what a threshold is offered for


def gate_finding(look: Look) -> str:
    """Whose matrices were gated, and the threshold that would gate the lowest 30 of 100."""
    gate, colours = look.gate, roles(look.family.experts)
    if gate is None or not np.isfinite(gate.values).any():
        return finding("Nothing is gated: no expert is marked as the safe one.",
                     "Set Safe to 1 for one expert, under More; the others then pass its gate.")  # fmt: skip
    if gate.threshold is None:
        return _densities(look, gate)
    seen = np.isfinite(gate.values)
    parts = [
        f"{label(name, colours[name])} {int(changed.sum())} of {int(there.sum())}"
        for name, changed, there in zip(look.family.experts, gate.changed, seen, strict=True)
        if there.any()
    ]
    read = (f"Hollow: below τ (dotted), mixed with the safe expert. "
            f"τ {np.quantile(gate.values[seen], _LOWEST):.2f} gates the lowest 30 of 100.")  # fmt: skip
    return finding(f"Matrices gated: {', '.join(parts)}.", read)


def _densities(look: Look, gate: Gate) -> str:
    """Each expert's layers with the least and the most kept, the mean over their matrices."""
    colours, parts = roles(look.family.experts), []
    for name, own in zip(look.family.experts, gate.values, strict=True):
        by_layer = np.nanmean(own, axis=0) if np.isfinite(own).any() else np.zeros(0)
        if len(by_layer):
            least, most = int(by_layer.argmin()), int(by_layer.argmax())
            low, high = (f"{by_layer[at]:.2f}" for at in (least, most))
            where = f"layer {least} ({low}) to layer {most} ({high})" if low != high else f"{low} in every layer"
            parts.append(f"{label(name, colours[name])} {where}")
    read = f"A mark is the share of a delta's entries kept; in each layer from the left {', '.join(look.family.kinds)}."
    return finding(f"Densities differ by layer: {', '.join(parts)}.", read)
