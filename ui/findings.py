"""What a picture of the weights says: one sentence of at most 15 words, then one grey line on how to read it.

Both are computed from the picture's data: one function for each picture, which writes out every case, the dull ones
too. Returns HTML; knows nothing of Gradio. What scores say is in `score_findings.py`.
"""

from collections.abc import Callable
from html import escape

import numpy as np

from merging.look import Conflict, Look, Matrix, MatrixView, Measure
from merging.plots.maps import per_matrix
from merging.plots.picture import roles
from merging.plots.scale import hundredths
from ui.marks import finding, label

_CHANCE = 0.5


def map_finding(look: Look, measure: Measure) -> str:
    conflict = look.conflicts[measure]
    if not conflict.rows:
        return finding("One expert alone has nobody to clash with.", "A map needs two experts with a weight.")
    if look.tier == "sample":
        return finding("Sampled: a first map from one weight in sixteen.", "The exact map follows when all are read.")
    if look.tier == "sketch" and measure not in ("sign", "cosine"):  # these two are exact by then
        return finding("Sketched: a first map from approximate directions.", "The exact map follows, matrix by matrix.")
    if not np.isfinite(conflict.values).any():
        if measure == "output":
            return finding("What the experts put out is not measured yet.",
                         "Press Measure the experts, beside the method.")  # fmt: skip
        empty = "Nothing to compare: no two experts change the same matrix."
        empty = "The merge keeps nothing: it is the base." if measure == "kept" else empty
        return finding(empty, "Cells without a change are empty.")
    says = {"sign": _sign, "cosine": _cosine, "shared": _shared, "interference": _interference, "kept": _kept,
            "output": _output}  # fmt: skip
    return says[measure](look, conflict)


def _sign(look: Look, conflict: Conflict) -> str:
    names, where, worst = _extreme(look, conflict, np.nanargmax)
    mean = float(np.nanmean(conflict.values))
    at_worst = f"{hundredths(worst)} of 100 weights there are pushed in opposite directions (chance: 50)."
    if worst > _CHANCE + 0.05:
        return finding(f"{names} clash most in {where}.", at_worst)
    if worst > _CHANCE + 0.02:
        return finding(f"{names} clash a little, most of all in {where}.", at_worst)
    highest = f"At most {hundredths(worst)} of 100 weights are pushed in opposite directions (chance: 50), in {where}."
    if mean > _CHANCE - 0.02:
        return finding("No pair clashes: signs agree about as often as chance.", highest)
    little = "a little more than chance" if mean > _CHANCE - 0.1 else "far more than chance"
    return finding(f"No pair clashes: all agree {little}.", highest)


def _cosine(look: Look, conflict: Conflict) -> str:
    names, where, lowest = _extreme(look, conflict, np.nanargmin)
    if lowest < -0.02:
        read = f"Cosine × 100 is {hundredths(lowest)} there; 0 is unrelated, 100 the same way."
        return finding(f"{names} pull apart most in {where}.", read)
    closest, there, highest = _extreme(look, conflict, np.nanargmax, opens=False)
    if highest < 0.02:
        return finding("The experts’ changes are unrelated everywhere.", "Cosine × 100: 0 unrelated, 100 the same way.")
    read = f"Cosine × 100 is {hundredths(highest)} in {there}; 0 is unrelated, 100 the same way."
    return finding(f"No pair pulls apart; {closest} come closest.", read)


def _shared(look: Look, conflict: Conflict) -> str:
    names, where, most = _extreme(look, conflict, np.nanargmax)
    read = f"{hundredths(most)} of 100 of their strongest directions overlap there. Shared directions are fought over."
    if most < 0.1:
        return finding("Each expert uses directions of its own.", f"At most {read[0].lower()}{read[1:]}")
    return finding(f"{names} share most directions in {where}.", read)


def _interference(look: Look, conflict: Conflict) -> str:
    names, where, most = _extreme(look, conflict, np.nanargmax)
    read = f"Interference × 100 is {hundredths(most)} there; 0 means that a plain sum loses nothing."
    if most < 0.05:
        return finding("The experts hardly get in each other’s way.", read.replace("there", f"at most, in {where}"))
    return finding(f"{names} interfere most in {where}.", read)


def _kept(look: Look, conflict: Conflict) -> str:
    colours = roles(look.family.experts)
    means = _means(conflict)
    _, where, lowest = _extreme(look, conflict, np.nanargmin)
    read = f"100: the merge moves as that expert did; 0: not at all. Lowest is {hundredths(lowest)}, in {where}."
    most, least = max(means, key=lambda m: means[m]), min(means, key=lambda m: means[m])
    if means[least] < -0.02:
        return finding(f"The merge moves away from {label(least, colours[least])}.", read)
    if len(means) == 1:
        return finding(f"The merge moves {hundredths(means[most])} of 100 {label(most, colours[most])}’s way.", read)
    if means[most] - means[least] < 0.05:
        return finding("The merge leans to all experts alike.", read)
    return finding(f"The merge leans to {label(most, colours[most])}; least is left of "
                 f"{label(least, colours[least])}.", read)  # fmt: skip


def _output(look: Look, conflict: Conflict) -> str:
    colours = roles(look.family.experts)
    means = _means(conflict)
    _, where, lowest = _extreme(look, conflict, np.nanargmin)
    shares = ", ".join(f"{label(name, colours[name])} {hundredths(mean)}" for name, mean in means.items())
    far = " This measures outputs, not answers; those are on Board." if min(means.values()) < -1 else ""
    read = (f"100: all it puts out on its own text; 0: as the base; below: further off. "
            f"Lowest is {hundredths(lowest)}, in {where}.{far}")  # fmt: skip
    return finding(f"Output kept, of 100: {shares}.", read)


def _means(conflict: Conflict) -> dict[str, float]:
    """By expert, over its matrices."""
    return {row[0]: float(np.nanmean(v)) for row, v in zip(conflict.rows, conflict.values, strict=True)
            if np.isfinite(v).any()}  # fmt: skip


def spectra_finding(look: Look, matrix: Matrix) -> str:
    view = look.views[matrix.name]
    where, whole = _place(matrix.layer, matrix.kind), min(matrix.shape)
    experts = [s for s in view.spectra if s.model != "merge"]
    moved = [s for s in experts if s.values.size and s.values[0] > 0]
    kept = [s.kept for s in experts if s.kept is not None]
    read = "A sketch, exact numbers follow." if view.sketched else "A curve that falls fast is easy to merge."
    if not kept:
        read += " This method cuts no directions."
    elif min(kept) >= whole:
        read += " At this rank every direction is kept."
    else:
        read += " The tick is where the method cuts; what lies beyond is dropped."
    if not moved:
        return finding(f"No expert changes {where}.", "A matrix without a change has no curve.")
    first = min(moved, key=lambda s: s.half_energy)
    if first.half_energy > 0.3 * whole:
        return finding(f"What experts learned in {where} is spread over many directions.", read)
    who = label(first.model, roles([s.model for s in experts])[first.model])
    place = "one direction" if first.half_energy == 1 else f"{first.half_energy} of {whole} directions"
    return finding(f"Half of what {who} learned in {where} sits in {place}.", read)


def kept_finding(look: Look) -> str:
    """How much of each expert the cut leaves, over all matrices."""
    names, colours = look.family.experts, roles(look.family.experts)
    shares = {name: _mean(look, lambda v, n=name: _share_kept(v, n)) for name in names}
    found = {name: share for name, share in shares.items() if share is not None}
    read = "Printed: directions kept. More ink: a larger share of all."
    if not found:
        return finding("This method keeps every direction.", "It works on single weights, not on directions.")
    most, least = max(found, key=lambda n: found[n]), min(found, key=lambda n: found[n])
    if found[least] > 0.995:
        return finding("Every direction of every expert is kept.", read)
    if found[most] - found[least] < 0.02:
        return finding(f"Each expert keeps {hundredths(found[most])} of 100 directions.", read)
    return finding(f"{label(most, colours[most], capital=True)} keeps most directions, "
                 f"{label(least, colours[least])} least.", read)  # fmt: skip


def tail_finding(look: Look) -> str:
    """Who has the heaviest tail, and whether the method does something about it."""
    tails = [(t, v.matrix) for v in look.views.values() for t in v.tails if np.isfinite(t.mass)]
    if not tails:
        return finding("No expert changes a matrix.", "Outliers are entries far beyond the usual size.")
    tail, matrix = max(tails, key=lambda pair: pair[0].mass)
    who = label(tail.model, roles(look.family.experts)[tail.model], capital=True)
    read = (f"{hundredths(tail.mass)} of 100 of its change there sits in {100 * tail.entries:.1f} of 100 entries. "
            + ("The method leaves them as they are." if all(abs(t.outlier_weight - 1) < 0.005 for t, _ in tails)
               else "An outlier weight below 1 damps, above 1 lifts."))  # fmt: skip
    if tail.mass < 0.02:
        return finding("No expert has outliers to speak of.", read)
    return finding(f"{who} has most outliers in {_place(matrix.layer, matrix.kind)}.", read)


def _extreme(look: Look, conflict: Conflict, pick: Callable, *, opens: bool = True) -> tuple[str, str, float]:
    """Who (with a capital where it opens the sentence), where and how much, in the cell that `pick` chooses."""
    row, kind, layer = np.unravel_index(int(pick(conflict.values)), conflict.values.shape)
    colours = roles(look.family.experts)
    names = conflict.rows[row]
    who = " and ".join(label(name, colours[name], capital=opens and not i) for i, name in enumerate(names))
    return who, _place(int(layer), look.family.kinds[kind]), float(conflict.values[row, kind, layer])


def _share_kept(view: MatrixView, name: str) -> float | None:
    kept = next((s.kept for s in view.spectra if s.model == name), None)
    return None if kept is None else kept / min(view.matrix.shape)


def _mean(look: Look, read: Callable) -> float | None:
    values = per_matrix(look, read)
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _place(layer: int, kind: str) -> str:
    return f"<b>layer {layer}, {escape(kind)}</b>"
