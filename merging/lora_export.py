"""A merge as a LoRA over its base: the best approximation of a chosen rank, with the loss stated.

Every matrix inside the layers is held as `base + b @ a`; by Eckart and Young the leading triplets of merged - base lose
least in the Frobenius norm. What a LoRA cannot hold (norms, biases, embeddings, head, stacked or routed experts) stays
the base's and is counted. Float32, because rounding the factors would add to the loss.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from merging.adapter_changes import CONV1D
from merging.card import opening, recipe_part, section, sources
from merging.companions import RECIPE, short_names, without_paths
from merging.compute import across_layers, as_matrix, merged_delta, read_deltas
from merging.decompose import SVD, svd, svd_of_product
from merging.engine import one_thread_a_matrix
from merging.errors import UserError
from merging.events import Event, Finished, LoraLoss, Notice, ShardWritten, Started, TensorDone
from merging.layers import layer_of
from merging.manifest import facts_of
from merging.model_files import ADAPTER, ADAPTER_CONFIG
from merging.partial import discard, open_partial
from merging.pieces import merged_tensor
from merging.plan import Plan
from merging.shards import Shard, write_shard
from merging.spectral import Fold
from merging.strict_json import json_bytes
from merging.tensor_plan import TensorPlan
from merging.words import first_names
from merging.writer import explained, refuse_full_disk, refuse_place, seconds_left

ROUTED = (".experts.", ".mlp.gate.", ".block_sparse_moe.gate.", ".router.")


@dataclass(frozen=True)
class Factor:
    """One factor of one matrix, as the file names it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


def write_lora(plan: Plan, out: Path, rank: int, device: str = "cpu") -> Iterator[Event]:
    """Write the merge as a PEFT adapter of `rank` to the folder `out`, whole or not at all."""
    begun = time.monotonic()
    out = Path(os.path.abspath(out))
    _refuse(plan, rank)
    refuse_place(plan, out)
    matrices = [tensor for tensor in plan.tensors if _in_lora(tensor)]
    if not matrices:
        raise UserError("E_LORA", "this model has no matrix that a LoRA could hold.", where=plan.base.source)
    rank = min(rank, max(min(tensor.shape) for tensor in matrices))
    shard = Shard(ADAPTER, tuple(factor for tensor in matrices for factor in _factors_of(plan, tensor, rank)))
    meter = _Meter()
    with explained(out), open_partial(out, {**facts_of(plan), "lora_rank": rank}, False) as partial:
        refuse_full_disk(partial, shard.n_bytes)
        yield Started(len(matrices), shard.n_bytes)
        for text in plan.notices:
            yield Notice(text)
        try:
            started, total = time.monotonic(), len(matrices)
            with one_thread_a_matrix():
                peak = across_layers(plan, lambda tensor: read_deltas(plan, tensor, device)[1])
            stream = _stream(plan, matrices, rank, device, peak, meter)
            for done, written in enumerate(write_shard(partial, shard, stream)):
                if done % 2:
                    left = seconds_left(started, total, total - done // 2 - 1)
                    yield TensorDone(written.name, done // 2 + 1, total, left)
            _measure_rest(plan, device, peak, meter)
        except UserError:
            discard(partial.folder)
            raise
        yield ShardWritten(ADAPTER, (partial.folder / ADAPTER).stat().st_size)
        loss = meter.loss(rank)
        partial.save(ADAPTER_CONFIG, _config(plan, matrices, rank))
        partial.save(RECIPE, without_paths(plan.recipe).to_yaml().encode())
        partial.save("README.md", _card(plan, out.name, loss).encode())
        partial.seal()
        partial.publish(out)
    yield loss
    yield Finished(str(out), plan.digest, len(matrices), time.monotonic() - begun)


class _Meter:
    """Sums squares of deltas and of what is lost of them, in double precision."""

    def __init__(self) -> None:
        self.matrices: dict[str, float] = {}
        self.delta = self.lost = self.left_out = 0.0
        self.left: list[str] = []

    def held(self, name: str, delta: float, lost: float) -> None:
        self.matrices[name] = sqrt(lost / delta) if delta else 0.0
        self.delta, self.lost = self.delta + delta, self.lost + lost

    def loss(self, rank: int) -> LoraLoss:
        whole = self.delta + self.left_out

        def share(part: float, of: float) -> float:
            return sqrt(part / of) if of else 0.0

        return LoraLoss(rank, self.matrices, share(self.lost, self.delta), share(self.left_out, whole),
                        tuple(self.left), share(self.lost + self.left_out, whole))  # fmt: skip


def _stream(
    plan: Plan, matrices: list[TensorPlan], rank: int, device: str, peak: Tensor | None, meter: _Meter
) -> Iterator[tuple[str, Tensor]]:
    """a (rank, n) and b (m, rank) of each matrix, padded with zeros, as PEFT multiplies them: `b @ a`."""
    with one_thread_a_matrix():
        for tensor in matrices:
            found = _triplets(plan, tensor, peak, device)
            squares = found.s.double().square()
            meter.held(tensor.name, float(squares.sum()), float(squares[rank:].sum()))
            top = found.head(rank)
            root = top.s.sqrt()
            b, a = top.u * root, (top.v * root).T
            if _is_transposed(plan):
                b, a = a.T, b.T
            names = [factor.name for factor in _factors_of(plan, tensor, rank)]
            empty = rank - len(top.s)
            yield names[0], torch.nn.functional.pad(a.cpu(), (0, 0, 0, empty)).contiguous()
            yield names[1], torch.nn.functional.pad(b.cpu(), (0, empty)).contiguous()


def _triplets(plan: Plan, tensor: TensorPlan, peak: Tensor | None, device: str) -> SVD:
    """All triplets of merged - base; of a low-rank merge from its own factors, exactly."""
    if plan.space != "weights" and as_matrix(tensor) and tensor.held is None:
        base, factors = read_deltas(plan, tensor, device)
        delta = merged_delta(plan, tensor, base, factors, peak)
        if isinstance(delta, Fold) and delta.u.shape[1] <= min(tensor.shape):
            return svd_of_product(delta.u * delta.x, delta.v.T)
    return svd(_difference(plan, tensor, peak, device))


def _difference(plan: Plan, tensor: TensorPlan, peak: Tensor | None, device: str) -> Tensor:
    """merged - base in float32, before the merge is rounded to its own dtype."""
    exact = replace(tensor, dtype=torch.float32)
    return merged_tensor(plan, exact, peak, device) - plan.base.read(tensor.base_name).float()


def _measure_rest(plan: Plan, device: str, peak: Tensor | None, meter: _Meter) -> None:
    for tensor in plan.tensors:
        if tensor.action == "merge" and not _in_lora(tensor):
            squares = float(_difference(plan, tensor, peak, device).double().square().sum())
            if squares:
                meter.left_out += squares
                meter.left.append(tensor.name)


def _in_lora(tensor: TensorPlan) -> bool:
    inside = layer_of(tensor.name) is not None and tensor.name.endswith(".weight") and tensor.action == "merge"
    return inside and len(tensor.shape) == 2 and not any(part in tensor.name for part in ROUTED)


def _factors_of(plan: Plan, tensor: TensorPlan, rank: int) -> tuple[Factor, Factor]:
    rows, columns = tensor.shape
    if _is_transposed(plan):
        rows, columns = columns, rows
    stem = f"base_model.model.{_module(plan, tensor)}"
    return Factor(f"{stem}.lora_A.weight", (rank, columns)), Factor(f"{stem}.lora_B.weight", (rows, rank))


def _is_transposed(plan: Plan) -> bool:
    """Whether the base stores its matrices as (in, out)."""
    return plan.base.config.get("model_type") in CONV1D


def _module(plan: Plan, tensor: TensorPlan) -> str:
    """The module that transformers makes of the tensor; old GPT-2 files leave out its first part."""
    name = tensor.name.removesuffix(".weight")
    return f"transformer.{name}" if name.startswith("h.") else name


def _refuse(plan: Plan, rank: int) -> None:
    if rank < 1:
        raise UserError("E_LORA", f"the rank is {rank}, but must be a whole number from 1.", where="--lora-rank")
    if plan.recipe.base is None:
        raise UserError("E_LORA", "a LoRA sits on a base, and the recipe names none.", where="base_model",
                        do="Write `base_model: FOLDER`.", kept="Nothing was written.")  # fmt: skip
    own = plan.base.shapes
    moved = [t.name for t in plan.tensors if t.name != t.base_name or own.get(t.name) != t.shape]
    if moved:
        raise UserError("E_LORA", f"the merge has other layers or shapes than its base ({first_names(moved)}).",
                        where=plan.base.source, do="Write the whole model: leave --lora-rank out.",
                        kept="Nothing was written.")  # fmt: skip


def _config(plan: Plan, matrices: list[TensorPlan], rank: int) -> bytes:
    """PEFT's adapter_config.json; alpha = r makes its scale 1."""
    modules = [_module(plan, tensor) for tensor in matrices]
    ends = sorted({module.rsplit(".", 1)[-1] for module in modules})
    others = [t.name.removesuffix(".weight") for t in plan.tensors if not _in_lora(t)]
    clear = not any(name.rsplit(".", 1)[-1] in ends for name in others)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "bias": "none", "lora_dropout": 0.0,
        "base_model_name_or_path": short_names(plan.recipe)[plan.base.source], "r": rank, "lora_alpha": rank,
        "fan_in_fan_out": _is_transposed(plan),
        "target_modules": ends if clear else modules,
    }  # fmt: skip
    return json_bytes(config)


def _card(plan: Plan, title: str, loss: LoraLoss) -> str:
    worst = sorted(loss.matrices.items(), key=lambda item: -item[1])
    rows = ["| matrix | lost of its norm |", "|---|---|"]
    rows += [f"| `{name}` | {100 * share:.2f} % |" for name, share in worst]
    parts = [
        opening(plan, title, "a LoRA of a merge", ["merge", "mergekit", "mergescope", "lora"], "peft"),
        section("Loss", *(f"- {line}" for line in loss.words())),
        "\n".join(rows),
        *sources(plan),
        recipe_part(plan, f"python -m merging merge {RECIPE} OUT/ --lora-rank {loss.rank}"),
    ]
    return "\n\n".join(parts) + "\n"
