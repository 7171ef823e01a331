"""What merges of a live family put out on the experts' texts, matrix by matrix."""

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial, reduce
from operator import add

import torch

from merging.calibration import MAKE
from merging.errors import UserError
from merging.fit import Outputs, outputs_of
from merging.live_deltas import LiveDeltas, Step
from merging.look import Matrix
from merging.resident import Resident
from merging.spectral import dense
from merging.view import stored


def put_out(
    steps: Sequence[Step], deltas: LiveDeltas, held: Resident, matrices: Sequence[Matrix], pool: Executor
) -> Outputs:
    """Over all matrices that the steps make and that were measured. Raises UserError E_CALIBRATION where none was."""
    found = [each for each in pool.map(partial(_of, steps, deltas, held), matrices) if each]
    if not found:
        raise UserError("E_CALIBRATION", "what these experts put out is not measured", where="calibration", do=MAKE)
    return reduce(add, found)


def _of(steps: Sequence[Step], deltas: LiveDeltas, held: Resident, matrix: Matrix) -> Outputs | None:
    """Of one matrix as each step merges it; None where it was not measured or the first step's recipe locks it."""
    plan, name = steps[0].plan, matrix.name
    if plan.calibration is None or name not in plan.calibration.about.matrices or plan.tensor(name).held is not None:
        return None
    merged = torch.stack([dense(deltas.delta(step, step.plan.tensor(name))) for step in steps])
    experts = held.fingerprints
    places = [experts.index(one) for one in (stored(e).fingerprint for e in plan.experts) if one in experts]
    inputs = plan.calibration.inputs(name, [experts[t] for t in places], held.device)
    return outputs_of(merged, held.read(name)[1].deltas[places], inputs)
