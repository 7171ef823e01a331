"""The least that a merge costs here: one loop without a plan, in memory that is used again. METHOD OUT MODEL...

Models are read in blocks, summed in float32, cast, checked and written, as often as PASSES says; nothing is looked up,
rounded exactly or kept for a tie. Thresholds and factors are any numbers: the passes over the entries are the same.
"known" methods are given what they would have to find first. What the hash of the written bytes costs is said apart.
"""

import os
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.runners.clock import done, ready

BLOCK, MATRIX, ROW = 1 << 17, 1 << 21, 1 << 10  # entries
LEVEL, SHARE = 1e-3, 0.5
start = ready()
torch.set_num_threads(1)
method = sys.argv[1]
deltas = method not in ("linear", "slerp")  # less the first model
files = [next(Path(model).glob("*.safetensors")).open("rb", buffering=0) for model in sys.argv[3:]]
experts = len(files) - deltas
size = os.fstat(files[0].fileno()).st_size // 2
stored, rows = (torch.empty(len(files), BLOCK, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
total, cast = torch.empty(BLOCK), torch.empty(BLOCK, dtype=torch.bfloat16)
sign, agrees, divisor, spread, apart = torch.empty(5, BLOCK)
kept, masks = torch.empty(experts, BLOCK), np.empty((experts, MATRIX), np.uint8)
chance = (torch.arange(ROW) * (0.2 / ROW) + 0.4).expand(BLOCK // ROW, ROW)
indices = np.arange(ROW, dtype=np.uint32)
numbers = np.random.SFC64(0)
data, written = [row.view(torch.uint8).numpy().data for row in stored], cast.view(torch.uint8).numpy().data


def read(at: int) -> Tensor:
    for file, into in zip(files, data, strict=True):
        os.preadv(file.fileno(), [into], 2 * at)
    stored.sum().item()
    rows.copy_(stored)
    return rows[1:].sub_(rows[0]) if deltas else rows


def gram(stack: Tensor, _: int) -> None:
    torch.mm(stack, stack.T)


def summed(stack: Tensor, _: int) -> None:
    torch.mul(stack[0], 0.3, out=total)
    for row in stack[1:]:
        total.add_(row, alpha=0.3)


def counted(stack: Tensor, _: int) -> None:
    """How many lie above and at the threshold among which a sample put it."""
    for row in stack:
        beyond = torch.abs(row, out=total).numpy()
        np.count_nonzero(beyond > LEVEL), np.count_nonzero(beyond == LEVEL)


def counted_twice(stack: Tensor, at: int) -> None:
    """For the largest, and for those above them."""
    counted(stack, at)
    counted(stack, at)


def elected(stack: Tensor, _: int) -> None:
    """TIES' sum of entries above a threshold, in the fewest passes."""
    for row in stack:
        torch.ops.aten.hardshrink.out(row, LEVEL, out=row)
    agreed(stack, 0)


def agreed(stack: Tensor, _: int) -> None:
    torch.add(stack.mul_(0.3)[0], stack[1], out=sign)
    for row in stack[2:]:
        sign.add_(row)
    stack.mul_(torch.ge(sign, 0.0, out=sign).mul_(2).sub_(1))
    divisor.zero_()
    for row in stack:
        divisor.add_(torch.gt(row, 0.0, out=agrees), alpha=0.3)
    summed(stack.clamp_(min=0), 0)
    total.mul_(sign).div_(divisor.clamp_(min=1e-8))


def between(stack: Tensor, _: int) -> None:
    for row, into in zip(stack, kept, strict=True):
        torch.ops.aten.hardshrink.out(row, LEVEL, out=into)
        into.sub_(torch.ops.aten.hardshrink.out(row, 4 * LEVEL, out=row))
    summed(kept, 0)


def noted(t: int, row: Tensor, below: Tensor, at: int) -> None:
    """The mask of what lies below its chance, and both L1 norms."""
    drawn = torch.from_numpy(numbers.random_raw(BLOCK // 4).view(np.int16)).float().add_(2**15 + 0.5).mul_(2.0**-16)
    mask = torch.lt(drawn, below, out=agrees)
    row.abs_().sum(), torch.mul(row, mask, out=total).sum()
    masks[t, at : at + BLOCK] = agrees.numpy() != 0


def drawn(stack: Tensor, at: int) -> None:
    for t, row in enumerate(stack):
        noted(t, row, torch.tensor(SHARE), at)


def ranked(stack: Tensor, at: int) -> None:
    """Chances by the rank in its row of 1024."""
    for t, row in enumerate(stack):
        keys = row.abs().view(torch.int32).view(-1, ROW).numpy().view(np.uint32) >> 9 << 10
        keys |= indices
        keys.sort(axis=1)
        order = torch.from_numpy((keys & (ROW - 1)).astype(np.int64))
        divisor.view(-1, ROW).scatter_(1, order, chance)
        noted(t, row, divisor, at)


def masked(stack: Tensor, at: int) -> Tensor:
    for row, mask in zip(stack, masks[:, at : at + BLOCK], strict=True):
        row.mul_(agrees.copy_(torch.from_numpy(mask)))
    return stack


def varied(stack: Tensor) -> Tensor:
    torch.add(stack[0], stack[1], out=sign)
    for row in stack[2:]:
        sign.add_(row)
    sign.div_(len(stack))
    spread.zero_()
    for row in stack:
        spread.addcmul_(torch.sub(row, sign, out=apart), apart)
    return spread


def selected(stack: Tensor, at: int) -> None:
    """The mask of what varies enough, and the experts' squared norms."""
    torch.gt(varied(stack), LEVEL, out=agrees)
    masks[0, at : at + BLOCK] = agrees.numpy() != 0
    torch.linalg.vector_norm(stack.mul_(agrees), dim=1)


def varying(stack: Tensor, at: int) -> None:
    agreed(stack.mul_(agrees.copy_(torch.from_numpy(masks[0, at : at + BLOCK]))), at)


PASSES = {
    "linear": [summed],
    "task_arithmetic": [summed],
    "slerp": [gram, summed],
    "model_stock": [gram, summed],
    "ties": [counted, elected],
    "known ties": [elected],
    "breadcrumbs": [counted_twice, between],
    "known breadcrumbs": [between],
    "dare_linear": [drawn, lambda stack, at: summed(masked(stack, at), at)],
    "dare_ties": [drawn, lambda stack, at: agreed(masked(stack, at), at)],
    "della": [ranked, lambda stack, at: agreed(masked(stack, at), at)],
    "sce": [lambda stack, at: counted(varied(stack)[None], at), selected, varying],
}
hashed, digest = 0.0, sha256()
*before, merge = PASSES[method]
with Path(sys.argv[2]).open("wb", buffering=0) as out:
    for matrix in range(0, size, MATRIX):
        places = range(matrix, min(matrix + MATRIX, size - BLOCK + 1), BLOCK)
        for look in before:
            for at in places:
                look(read(at), at - matrix)
        for at in places:
            merge(read(at), at - matrix)
            if deltas:
                total.add_(rows[0])
            cast.copy_(total).sum().item()
            out.write(written)
            begun = time.process_time()
            digest.update(written)
            hashed += time.process_time() - begun
done(start, hashed=hashed)
