"""The least that a merge costs here: one loop without a plan, in memory that is used again. PASSES WHAT OUT MODEL...

Models are read in blocks, summed in float32, cast, checked and written; two passes find a Gram matrix first. WHAT is
"models", "deltas" from the first, or "elected" deltas: TIES at a threshold that is known beforehand (any will do: the
passes are the same). What the hash of the written bytes costs is said apart.
"""

import os
import sys
import time
from hashlib import sha256
from pathlib import Path

import torch

from benchmarks.runners.clock import done, ready

BLOCK, MATRIX = 1 << 17, 1 << 21  # entries
start = ready()
torch.set_num_threads(1)
passes, deltas = int(sys.argv[1]), sys.argv[2] != "models"
files = [next(Path(model).glob("*.safetensors")).open("rb", buffering=0) for model in sys.argv[4:]]
size = os.fstat(files[0].fileno()).st_size // 2
stored, rows = (torch.empty(len(files), BLOCK, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
total, cast = torch.empty(BLOCK), torch.empty(BLOCK, dtype=torch.bfloat16)
sign, agrees, divisor = torch.empty(3, BLOCK)
data, written = [row.view(torch.uint8).numpy().data for row in stored], cast.view(torch.uint8).numpy().data


def read(at: int) -> torch.Tensor:
    for file, into in zip(files, data, strict=True):
        os.preadv(file.fileno(), [into], 2 * at)
    stored.sum().item()
    rows.copy_(stored)
    return rows[1:].sub_(rows[0]) if deltas else rows


def summed(stack: torch.Tensor) -> None:
    first, *others = stack
    torch.mul(first, 0.3, out=total)
    for row in others:
        total.add_(row, alpha=0.3)


def added(stack: torch.Tensor, out: torch.Tensor) -> None:
    torch.add(stack[0], stack[1], out=out)
    for row in stack[2:]:
        out.add_(row)


def elected(stack: torch.Tensor) -> None:
    """In the fewest passes, all in memory that is used again."""
    for row in stack:
        torch.ops.aten.hardshrink.out(row, 1e-3, out=row)
    added(stack.mul_(0.3), sign)
    stack.mul_(torch.ge(sign, 0.0, out=sign).mul_(2).sub_(1))
    divisor.zero_()
    for row in stack:
        divisor.add_(torch.gt(row, 0.0, out=agrees), alpha=0.3)
    added(stack.clamp_(min=0), total)
    total.mul_(sign).div_(divisor.clamp_(min=1e-8))


hashed, digest = 0.0, sha256()
with Path(sys.argv[3]).open("wb", buffering=0) as out:
    for matrix in range(0, size, MATRIX):
        places = range(matrix, min(matrix + MATRIX, size - BLOCK + 1), BLOCK)
        for at in places if passes == 2 else ():
            stack = read(at)
            torch.mm(stack, stack.T)
        for at in places:
            (elected if sys.argv[2] == "elected" else summed)(read(at))
            if deltas:
                total.add_(rows[0])
            cast.copy_(total).sum().item()
            out.write(written)
            begun = time.process_time()
            digest.update(written)
            hashed += time.process_time() - begun
done(start, hashed=hashed)
