"""Random numbers keyed by (seed, owner's content hash, tensor, block): the same in any order."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 18  # entries that share one state of the generator


@dataclass(frozen=True)
class Numbers:
    """The numbers of one owner and tensor: float32 in [0, 1), the middles of 2^16 equal steps, so never 0."""

    seed: int
    owner: str
    tensor: str

    def part(self, start: int, stop: int) -> Tensor:
        """Those of the flat entries from `start` to `stop`."""
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        drawn = [_draw(self, block)[max(start - block * BLOCK, 0) : stop - block * BLOCK] for block in blocks]
        steps = torch.from_numpy(drawn[0] if len(drawn) == 1 else np.concatenate(drawn or [np.empty(0, np.int16)]))
        return steps.float().add_(2**15 + 0.5).mul_(2.0**-16)


@lru_cache(maxsize=16)  # a merge cuts a tensor finer than the generator does
def _draw(numbers: Numbers, block: int) -> np.ndarray:
    state = np.random.SFC64(np.random.SeedSequence([_key(numbers.seed, numbers.owner, numbers.tensor), block]))
    return state.random_raw(BLOCK // 4).view(np.int16)


def uniform_bits(seed: int, owner: str, tensor: str, shape: tuple[int, ...]) -> Tensor:
    """All numbers of one owner and tensor."""
    return Numbers(seed, owner, tensor).part(0, int(np.prod(shape, dtype=np.int64))).view(shape)


def uniform_number(seed: int, owner: str) -> Tensor:
    """One number of an owner for a whole merge, 0-d float32 in [0, 1) with all its 24 bits."""
    generator = np.random.Generator(np.random.Philox(key=_key(seed, owner, "")))
    return torch.tensor(generator.random(dtype=np.float32))


def _key(seed: int, owner: str, tensor: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{owner}/{tensor}".encode()).digest()[:16], "little")
