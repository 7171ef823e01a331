"""Every picture once more as a table: headers and rows of plain values."""

import numpy as np

from merging.look import Look, MatrixView, Measure
from merging.plots.spectra import sample

Table = tuple[list[str], list[list[str | int | float | None]]]


def conflict_table(look: Look, measure: Measure) -> Table:
    """One row a matrix, one column a pair (or an expert), in hundredths as in the cells."""
    conflict = look.conflicts[measure]
    kinds = look.family.kinds
    rows = [
        [m.layer, m.kind, *(_plain(100 * v, 1) for v in conflict.values[:, kinds.index(m.kind), m.layer])]
        for m in look.family.matrices
    ]
    return ["layer", "matrix", *(" × ".join(names) for names in conflict.rows)], rows


def kept_table(look: Look) -> Table:
    rows = []
    for view in look.views.values():
        m = view.matrix
        rows.append([m.layer, m.kind, min(m.shape), *(s.kept for s in view.spectra if s.model != "merge")])
    return ["layer", "matrix", "of", *look.family.experts], rows


def tail_table(look: Look) -> Table:
    """Per matrix and expert, in hundredths: L1 mass beyond the threshold, and the outlier weight chosen."""
    rows = []
    for view in look.views.values():
        pairs = [(_plain(100 * t.mass, 1), _plain(100 * t.outlier_weight, 1)) for t in view.tails]
        rows.append([view.matrix.layer, view.matrix.kind, *(value for pair in pairs for value in pair)])
    heads = [f"{name}, {what}" for name in look.family.experts for what in ("outlier mass", "outlier weight")]
    return ["layer", "matrix", *heads], rows


def spectrum_table(view: MatrixView) -> Table:
    """Strength by direction, at the places the picture draws."""
    longest = max((len(s.values) for s in view.spectra), default=0)
    rows = [
        [int(i) + 1, *(float(f"{s.values[i]:.4g}") if i < len(s.values) else None for s in view.spectra)]
        for i in (sample(longest) if longest else [])
    ]
    return ["direction", *(s.model for s in view.spectra)], rows


def _plain(value: float, digits: int) -> float | None:
    return None if np.isnan(value) else round(float(value), digits)
