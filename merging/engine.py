"""Runs a plan: streams tensor by tensor, many matrices side by side."""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

from merging import writer
from merging.card import Scores
from merging.compute import across_layers, read_deltas
from merging.cores import cores
from merging.events import Event
from merging.facts import MatrixFacts, Profile
from merging.look import family_of
from merging.pieces import pieces
from merging.plan import Plan
from merging.store import Store
from merging.tensor_plan import TensorPlan
from merging.view import View, stored


def merge(plan: Plan, out: Path, *, device: str = "cpu", resume: bool = False, accept: writer.Accept | None = None,
          scores: Scores | None = None, profile: Store | None = None) -> Iterator[Event]:  # fmt: skip
    """Write the merged model to `out`, whole or not at all; yields typed events. See `writer.write`.

    profile: where facts of the family may be kept (`merging.facts`); the same bytes are then there sooner.
    """

    def tensors(skip: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        return merged_pieces(plan, device=device, skip=skip, profile=profile)

    yield from writer.write(plan, out, tensors, resume=resume, accept=accept, scores=scores)


def merged_tensors(plan: Plan, *, device: str = "cpu", skip: Collection[str] = ()) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the merge in plan order, in its output dtype, on the CPU."""
    for name, parts in groupby(merged_pieces(plan, device=device, skip=skip), itemgetter(0)):
        found = [piece for _, piece in parts]
        yield name, (found[0] if len(found) == 1 else torch.cat(found)).view(plan.tensor(name).shape)


def merged_pieces(
    plan: Plan, *, device: str = "cpu", skip: Collection[str] = (), profile: Store | None = None
) -> Iterator[tuple[str, Tensor]]:
    """As `merged_tensors`, but a tensor comes in one or more pieces, each a flat row of its entries (`pieces.py`).

    Pieces are computed side by side. At most two for each core are in memory, so that it does not grow with the model.
    On a device two are under way at a time: one is read and copied over while the other is computed.
    """
    known = _known(plan, profile)
    workers = cores() if device == "cpu" else 2
    waiting: deque[tuple[str, Future[Tensor]]] = deque()
    with one_thread_a_matrix(), ThreadPoolExecutor(workers, initializer=_own_stream, initargs=(device,)) as pool:
        peak = across_layers(plan, lambda tensor: read_deltas(plan, tensor, device)[1])
        try:
            for tensor in plan.tensors:
                if tensor.name in skip:
                    continue
                for piece in pieces(plan, tensor, peak, device, known(tensor)):
                    waiting.append((tensor.name, pool.submit(piece)))
                    if len(waiting) > 2 * workers:
                        name, result = waiting.popleft()
                        yield name, result.result()
            while waiting:
                name, result = waiting.popleft()
                yield name, result.result()
        finally:
            for _, result in waiting:
                result.cancel()


def _own_stream(device: str) -> None:
    """For the thread that calls it: on a GPU its copies run beside what other threads compute there."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))


def _known(plan: Plan, store: Store | None) -> Callable[[TensorPlan], MatrixFacts | None]:
    """Finds the facts that `store` keeps of a tensor of the plan's family; None where it has none or the method reads
    none.
    """
    if store is None or plan.space != "delta" or not plan.method.magnitudes:
        return lambda tensor: None
    base, *experts = map(stored, plan.models)
    matrices = family_of((), base.shapes).matrices
    kept = Profile(base, experts, [matrix.name for matrix in matrices], store)

    def known(tensor: TensorPlan) -> MatrixFacts | None:
        name = tensor.base_name
        if any(part.name != name for part in tensor.inputs):
            return None
        moved = any(isinstance(model, View) and model.changes(name) for model in plan.models)
        return None if moved else kept.get(name)

    return known


@contextmanager
def one_thread_a_matrix() -> Iterator[None]:
    """LAPACK's results change with its number of threads: one each, many matrices side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
