"""One tensor of the merge, in pieces that can be computed side by side and written as they come.

A piece of an element-wise merge is some blocks of it: no tensor is ever in memory whole, however large it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from merging.blocks import Blocks, blocks_shape
from merging.compute import (
    as_matrix,
    as_stack,
    kept_inputs,
    kept_tensor,
    merged_delta,
    merged_weights,
    method_settings,
    read_deltas,
    read_models,
    settings_by_block,
    weighed,
)
from merging.layers import layer_of
from merging.random_bits import Numbers
from merging.shaping import is_plain
from merging.spectral import dense

if TYPE_CHECKING:  # a plan may hold a merge that feeds it, which is computed here
    from merging.checkpoint import Checkpoint
    from merging.facts import MatrixFacts
    from merging.plan import Plan
    from merging.tensor_plan import TensorPlan

PIECE = 1 << 21  # entries

Piece = Callable[[], Tensor]


def merged_tensor(plan: Plan, tensor: TensorPlan, peak: Tensor | None, device: str = "cpu") -> Tensor:
    """One tensor of the merge, in its output dtype, on the CPU."""
    first, *others = pieces(plan, tensor, peak, device)
    if not others:
        return first().view(tensor.shape)
    out, at = torch.empty(tensor.shape, dtype=tensor.dtype), 0
    for piece in (first, *others):
        found = piece()
        out.view(-1)[at : at + len(found)] = found
        at += len(found)
    return out


def pieces(
    plan: Plan, tensor: TensorPlan, peak: Tensor | None, device: str = "cpu", facts: MatrixFacts | None = None
) -> list[Piece]:
    """What computes the tensor's pieces, each a flat row of entries, in their order in the tensor; they may be called
    in any order.

    On a device a tensor is one piece. But it is merged in blocks on the CPU where it lies outside the layers, as
    embeddings of billions of bytes do, or where a spectral method does not take it.
    facts: what is known of the plan's experts, which saves passes over their entries.
    """
    if in_blocks(plan, tensor) and (device == "cpu" or plan.method.spectral or layer_of(tensor.name) is None):
        return _pieces_of_blocks(plan, tensor, facts)
    return [partial(_whole, plan, tensor, peak, device)]


def in_blocks(plan: Plan, tensor: TensorPlan) -> bool:
    """Whether the merge of this tensor is element-wise and its deltas are plain differences."""
    if not tensor.is_merged or not kept_inputs(plan, tensor):
        return False
    taken = as_matrix(tensor) or as_stack(tensor)
    if not plan.method.blocks and (taken or not plan.method.spectral):
        return False
    return plan.space == "weights" or not (
        (taken and not is_plain(tensor.settings))
        or any(plan.experts[part.model].over is not None for part in tensor.inputs)  # an adapter's delta is B A
    )


def _whole(plan: Plan, tensor: TensorPlan, peak: Tensor | None, device: str) -> Tensor:
    if not tensor.is_merged:
        return kept_tensor(plan, tensor).reshape(-1)
    if plan.space == "weights":
        merged = merged_weights(plan, tensor, read_models(plan, tensor, device))
    else:
        base, factors = read_deltas(plan, tensor, device)
        delta = merged_delta(plan, tensor, base, factors, peak)
        merged = base.float() + dense(delta)
    return merged.to(tensor.dtype).cpu().reshape(-1)


def _pieces_of_blocks(plan: Plan, tensor: TensorPlan, facts: MatrixFacts | None) -> list[Piece]:
    """They give the same numbers as the method on whole stacks."""
    method, keep = plan.method, kept_inputs(plan, tensor)
    inputs = [tensor.inputs[t] for t in keep]
    weights = torch.tensor([tensor.weights[t] for t in keep], dtype=torch.float32)
    numbers = [Numbers(plan.recipe.seed, plan.experts[part.model].fingerprint, tensor.name) for part in inputs]
    shape = blocks_shape(tensor.shape, method.blocks == "rows")
    width = prod(shape[1:])

    def bits(t: int, start: int, stop: int) -> Tensor:
        return numbers[t].part(start * width, stop * width).view(stop - start, *shape[1:])

    counts = tuple(facts.deltas[part.model].magnitudes for part in inputs) if facts else ()
    blocks = Blocks(shape, _closed, bits if method.random else None, counts)
    every = list(blocks.spans())
    stored = all(model.is_stored(name) for model, name in _models(plan, tensor, keep))
    n = max(1, PIECE // (blocks.step * width)) if stored else len(every)
    read_once = bool(method.measure) and n >= len(every) and prod(shape) <= PIECE
    measuring, settings_of = Lock(), None

    def piece(spans: list[tuple[int, int]]) -> Tensor:
        nonlocal settings_of
        first = spans[0][0]
        out = torch.empty((spans[-1][1] - first, *shape[1:]), dtype=tensor.dtype)
        with _reading(plan, tensor, keep) as rows:
            if read_once:
                rows = _from_memory(rows, [(start * width, stop * width) for start, stop in spans])

            def read(start: int, stop: int) -> Tensor:
                return rows(start * width, stop * width).view(-1, stop - start, *shape[1:])

            with measuring:  # the first piece does it for all
                if settings_of is None:
                    ready = replace(blocks, read=lambda start, stop: read(start, stop)[: len(keep)])
                    settings_of = settings_by_block(method, ready, method_settings(plan, tensor, keep))
            for start, stop in spans:
                stack = read(start, stop)
                deltas, settings = stack[: len(keep)], settings_of(start, stop)
                merged = weighed(deltas, weights, tensor) if method.spectral else method(deltas, weights, **settings)
                out[start - first : stop - first] = merged.add_(stack[-1]) if len(stack) > len(keep) else merged
        return out.view(-1)

    return [partial(piece, every[at : at + n]) for at in range(0, len(every), n)]


def _closed(start: int, stop: int) -> Tensor:
    raise ValueError("no file is open")


def _models(plan: Plan, tensor: TensorPlan, keep: list[int]) -> list[tuple[Checkpoint, str]]:
    """The models that are read, each with the tensor's name there: those merged, and in delta space the base last."""
    models = [(plan.experts[tensor.inputs[t].model], tensor.inputs[t].name) for t in keep]
    return models if plan.space == "weights" else [*models, (plan.base, tensor.base_name)]


def _from_memory(rows: Callable[..., Tensor], spans: list[tuple[int, int]]) -> Callable[[int, int], Tensor]:
    """The same entries from memory, read once for all passes over them."""
    whole = torch.empty(len(rows(0, 0)), spans[-1][1])
    for start, stop in spans:
        rows(start, stop, whole[:, start:stop])
    return lambda start, stop: whole[:, start:stop]


@contextmanager
def _reading(plan: Plan, tensor: TensorPlan, keep: list[int]) -> Iterator[Callable[..., Tensor]]:
    """Gives flat entries from start to stop in float32, a row for each model of `_models`; in delta space the experts'
    rows are their deltas from the last one, the base's. They come in `rows`, else in memory that the next call uses
    again.
    """
    with ExitStack() as files:
        parts = [files.enter_context(model.parts(name)) for model, name in _models(plan, tensor, keep)]
        scratch = torch.empty(len(parts), 0)  # fresh memory for every block would cost more than the arithmetic

        def read(start: int, stop: int, rows: Tensor | None = None) -> Tensor:
            nonlocal scratch
            if rows is None:
                if scratch.shape[1] < stop - start:
                    scratch = torch.empty(len(parts), stop - start)
                rows = scratch[:, : stop - start]
            for row, part in zip(rows, parts, strict=True):
                row.copy_(part(start, stop))
            if plan.space != "weights":
                rows[:-1].sub_(rows[-1])
            return rows

        yield read
