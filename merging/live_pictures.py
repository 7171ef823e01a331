"""What is shown of a family's matrices. What weights and scale do not change is measured once; the rest follows from
one vector for each matrix.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np
from torch import Tensor

from merging import analysis
from merging.calibration import Calibration, Inputs
from merging.compute import gated, kept_inputs
from merging.decompose import singular_values
from merging.facts import MatrixFacts, Profile
from merging.live_deltas import Step
from merging.look import (
    Conflict,
    Family,
    Gate,
    Limit,
    Look,
    Matrix,
    MatrixView,
    Measure,
    Spectrum,
    Tail,
    early_look,
    gather,
)
from merging.measures import Crossed, Numbers, cross, numbers_of_delta, numbers_of_fold, pair_measures
from merging.outputs import Along, along, kept_by, kept_by_fold
from merging.resident import Resident
from merging.spectral import Factors, Fold, dense
from merging.tensor_plan import TensorPlan

Measures = Mapping[str, Sequence[float]]  # measure -> a value for each row; "gate" -> one for each expert
Kept = tuple[int | None, ...]  # directions kept of each expert; None where the method does not cut


@dataclass(frozen=True)
class Seen:
    """One matrix of one recipe."""

    view: MatrixView
    measures: Measures


class Pictures:
    """Views and measures of merged deltas. No two threads may work on one matrix at a time."""

    def __init__(self, family: Family, profile: Profile, held: Resident) -> None:
        self._family, self._profile, self._held = family, profile, held

    def view(self, step: Step, matrix: Matrix, delta: Tensor | Fold) -> MatrixView:
        tensor, factors = step.plan.tensor(matrix.name), self._held.matrix(matrix.name)
        kappa, eta = tensor.settings.get("outlier_threshold", 3.0), tensor.settings.get("sparsity_threshold", 0.1)
        kept, weights = self._kept(step, tensor, delta)
        spectra = factors.remember(("spectra", kept), partial(self._spectra, factors, kept))
        tails = factors.remember(("tails", kappa, eta), partial(self._tails, matrix.name, kappa, eta))
        if any(weight != 1 for weight in weights):
            tails = tuple(replace(one, outlier_weight=w) for one, w in zip(tails, weights, strict=True))
        strengths = delta.singular_values() if isinstance(delta, Fold) else singular_values(delta)
        merged = analysis.spectrum("merge", strengths, None)
        dropped = delta.dropped if isinstance(delta, Fold) else 0
        return MatrixView(matrix, (*spectra, merged), tails, dropped, factors.sketched)

    def measures(self, step: Step, matrix: Matrix, delta: Tensor | Fold) -> Measures:
        tensor, factors = step.plan.tensor(matrix.name), self._held.matrix(matrix.name)
        kept, _ = self._kept(step, tensor, delta)
        pairs = factors.remember(("pairs", kept), partial(self._pairs, matrix.name, factors, kept))
        norms = [each.norm for each in self.facts(matrix.name).deltas]
        found = {**pairs, "kept": self._numbers(factors, delta).cosines(norms)}
        if (outputs := self._outputs(step, matrix.name, factors, delta)) is not None:
            found["output"] = outputs
        return found | ({"gate": self._gate(step, tensor)} if step.plan.method.gate else {})

    def look(self, step: Step, seen: Mapping[str, Seen], seconds: float) -> Look:
        family = self._family
        single = tuple((name,) for name in family.experts)
        rows = {measure: single if measure in ("kept", "output") else family.pairs for measure in get_args(Measure)}
        rows = {m: own for m, own in rows.items() if all(m in found.measures for found in seen.values())}
        each = ((found.view.matrix, [x for m in rows for x in found.measures[m]]) for found in seen.values())
        ends = np.cumsum([len(own) for own in rows.values()])
        parts = np.split(gather(family, int(ends[-1]), each), ends[:-1])  # one call: most of it is Python's time
        found = zip(rows.items(), parts, strict=True)
        conflicts: dict[Any, Conflict] = {measure: Conflict(measure, own, part) for (measure, own), part in found}
        views = {matrix.name: seen[matrix.name].view for matrix in family.matrices}
        limit = self._limit(step, views.values())
        gate = self._gates(step, seen) if step.plan.method.gate else self._densities(step)
        return Look(step.plan.digest, family, conflicts, views, seconds, limit, gate)

    def maps(self, digest: str, seconds: float) -> Look:
        """Those of signs and cosines, from the facts of all matrices, which must be known."""
        facts = {matrix.name: self.facts(matrix.name) for matrix in self._family.matrices}
        pairs = {
            name: ([pair.sign_conflict for pair in found.pairs.values()], [found.cosine(*ab) for ab in found.pairs])
            for name, found in facts.items()
        }
        return early_look(digest, self._family, pairs, seconds, "maps")

    def _gates(self, step: Step, seen: Mapping[str, Seen]) -> Gate:
        each = [(found.view.matrix, found.measures["gate"]) for found in seen.values()]
        at = ((matrix, [step.plan.tensor(matrix.name).settings["tau"]]) for matrix, _ in each)
        values = gather(self._family, len(self._family.experts), each)
        return Gate(values, gather(self._family, 1, at)[0])

    def _densities(self, step: Step) -> Gate | None:
        """None where the method has none, or every matrix has the same."""
        if step.plan.method.knob("density") is None:
            return None
        each: list[tuple[Matrix, list[float]]] = []
        for matrix in self._family.matrices:
            own = [math.nan] * len(self._family.experts)
            for place, value in zip(step.order, step.plan.tensor(matrix.name).settings["density"], strict=True):
                own[place] = value
            each.append((matrix, own))
        if all(str(own) == str(each[0][1]) for _, own in each):  # nan is not itself
            return None
        return Gate(gather(self._family, len(self._family.experts), each), None)

    def _gate(self, step: Step, tensor: TensorPlan) -> Sequence[float]:
        """By expert of the family."""
        found = [math.nan] * len(self._family.experts)
        base, factors = self._held.read(tensor.name)
        for place, value in zip(step.order, gated(step.plan, tensor, base, factors.select(step.order)), strict=True):
            found[place] = value
        return found

    def _limit(self, step: Step, views: Iterable[MatrixView]) -> Limit | None:
        """What holds the ranks down where a matrix has reached it and the recipe asks for more."""
        found = None
        for view in views if self._held.share < 1 else ():
            kept = [spectrum.kept for spectrum in view.spectra[:-1]]
            asked = step.plan.tensor(view.matrix.name).settings.get("rank_budget", 1.0)
            shown = self._held.share * sum(k != 0 for k in kept) / len(kept)
            if asked > shown and self._held.most(view.matrix.shape) in kept and (not found or asked > found.asked):
                found = Limit(round(shown, 2), asked)
        return found

    def facts(self, name: str) -> MatrixFacts:
        known = self._profile.get(name)
        if known is None:
            base, factors = self._held.read(name)
            known = self._profile.learn(name, base, factors.deltas)
        return known

    def _spectra(self, factors: Factors, kept: Kept) -> tuple[Spectrum, ...]:
        return tuple(
            analysis.spectrum(expert, factors.spectrum(t), kept[t]) for t, expert in enumerate(self._family.experts)
        )

    def _tails(self, name: str, kappa: float, eta: float) -> tuple[Tail, ...]:
        """As if no outlier was reweighted."""
        facts = self.facts(name)
        return tuple(
            facts.deltas[t].tail(expert, facts.base_norm, kappa=kappa, eta=eta)
            for t, expert in enumerate(self._family.experts)
        )

    def _pairs(self, name: str, factors: Factors, kept: Kept) -> Measures:
        cuts = [factors.full_rank // len(kept) if k is None else k for k in kept]
        return pair_measures(self.facts(name), factors, [factors.svd(t, k) for t, k in enumerate(cuts)])

    def _numbers(self, factors: Factors, delta: Tensor | Fold) -> Numbers:
        """In closed form where the method orthogonalised the experts' triplets: such directions last many moves."""
        if not isinstance(delta, Fold):
            return numbers_of_delta(delta, factors.deltas)
        if not delta.ranks:
            return numbers_of_delta(delta.dense(), factors.deltas)
        return numbers_of_fold(delta, self.crossed(factors, delta))

    def crossed(self, factors: Factors, fold: Fold) -> Crossed:
        # what is remembered holds these very directions, so that no others get their id
        return factors.remember(("crossed", id(fold.u)), partial(cross, fold, factors.deltas))

    def _outputs(self, step: Step, name: str, factors: Factors, delta: Tensor | Fold) -> Sequence[float] | None:
        """What the merge keeps of each expert's output, nan where that was not measured for all of them.

        None where it was, takes a pass over the matrix, and the step has no use for it.
        """
        calibration = step.plan.calibration
        if calibration is None or not self._measured(calibration, name):
            return [math.nan] * len(self._held.fingerprints)
        if isinstance(delta, Fold) and delta.core is None:
            return kept_by_fold(delta.x, self._along(calibration, name, factors, delta))
        return kept_by(dense(delta), factors.deltas, self._inputs(calibration, name, factors)) if step.outputs else None

    def along(self, step: Step, name: str, fold: Fold) -> Along | None:
        """What closed folds' outputs follow from, where those of all experts are measured."""
        calibration = step.plan.calibration
        if calibration is None or not self._measured(calibration, name):
            return None
        return self._along(calibration, name, self._held.matrix(name), fold)

    def _along(self, calibration: Calibration, name: str, factors: Factors, fold: Fold) -> Along:
        key = ("along", id(fold.u), calibration.digest)
        return factors.remember(key, lambda: along(fold, factors.deltas, self._inputs(calibration, name, factors)))

    def _measured(self, calibration: Calibration, name: str) -> bool:
        return name in calibration.about.matrices and calibration.knows(self._held.fingerprints)

    def _inputs(self, calibration: Calibration, name: str, factors: Factors) -> Inputs:
        """What all experts' matrices read; a small family's stay in memory."""
        experts = self._held.fingerprints
        inputs = calibration.inputs(name, experts, self._held.device)
        if not self._held.lean and (read := inputs.gram):
            grams = factors.remember(("grams", calibration.digest), lambda: [read(t) for t in range(len(experts))])
            inputs = replace(inputs, gram=grams.__getitem__)
        return inputs

    def _kept(self, step: Step, tensor: TensorPlan, delta: Tensor | Fold) -> tuple[Kept, Sequence[float]]:
        """Per expert of the family: directions kept, and mean outlier weight."""
        n = len(self._family.experts)
        if not isinstance(delta, Fold) or not delta.ranks:
            return (None,) * n, (1.0,) * n
        kept: list[int | None] = [0] * n
        weights = [1.0] * n
        for i, t in enumerate(kept_inputs(step.plan, tensor)):
            kept[step.order[t]] = delta.ranks[i]
            weights[step.order[t]] = delta.outlier_weights[i] if delta.outlier_weights else 1.0
        return tuple(kept), weights
