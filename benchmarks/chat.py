"""What chatting takes: measured for a family that is here, counted for devices that are not.

    python -m benchmarks.chat [--size mid] [--folder FOLDER]

Writes benchmarks/chat.md. Measured: one process, as the page's worker is one, on one core of the CPU, in float32.
Counted: by the functions that decide at run time, which ask headers alone, in bfloat16.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.bench import ROOT
from benchmarks.family import EXPERTS, SIZES, make_hollow, make_speaking
from benchmarks.measured import run
from eval.running.sources import Merged, Room, Source
from eval.running.swapping import at_least, staying
from merging.checkpoint import Checkpoint, open_checkpoint
from merging.device import divide
from merging.folded import Folded
from merging.layers import layer_of
from merging.live import LiveMerge
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from merging.resident import BUDGET, limits, stored_bytes
from merging.spectral import Fold

RESULTS = Path(__file__).with_suffix(".md")
ITEM = 2  # bytes of a bfloat16
GB = 10**9
DEVICES = (("mid", 24), ("8b", 80), ("8b", 48), ("8b", 24), ("8b", 16), ("8b", 4))


@dataclass(frozen=True)
class Placed:
    """A family on a device: which models are there together, and how many of a model's layers have no room."""

    groups: tuple[tuple[str, ...], ...]
    fetched: int | None  # None: not even one layer at a time fits
    live: int  # bytes that the live merge holds there
    share: float  # of full rank, that its folds keep at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where the family lies")
    args = parser.parse_args()
    home = make_speaking(args.size, args.folder)
    lines = ["# What chatting takes", "", *_measured(home), "", *_counted(), ""]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))


def placed(home: Path, n_bytes: int) -> Placed:
    """A family on a device of so many bytes, RESM's folds of all directions that are held among its models."""
    base, *experts = (open_checkpoint(name, home) for name in ("base", *EXPERTS))
    shares = divide(n_bytes)
    live = LiveMerge(base, experts, EXPERTS, None, *limits(stored_bytes(base), shares.live))
    folds = {m.name: _fold(m.shape, len(EXPERTS) * live.held.most(m.shape)) for m in live.family.matrices}
    plan = make_plan(Recipe("resm", "base", tuple(map(Expert, EXPERTS)), folder=home))
    merge = Merged(plan, dict, Folded(plan.digest, folds, {}), written=False)
    sources: dict[str, Source] = {"base": base, **dict(zip(EXPERTS, experts, strict=True)), "merge": merge}
    room = Room(shares.chat, ITEM, swaps=True)
    groups = tuple(tuple(group) for group in room.groups(sources))
    return Placed(groups, 0 if room.fits(base) else _fetched(base, shares.chat), live.n_bytes, live.held.share)


def _fold(shape: tuple[int, ...], rank: int) -> Fold:
    """With no numbers."""
    u, x, v = (torch.empty(size, device="meta") for size in ((shape[0], rank), (rank,), (shape[1], rank)))
    return Fold(u, x, v)


def _fetched(model: Checkpoint, room: int) -> int | None:
    sizes = {name: ITEM * prod(info.shape) for name, info in model.tensors.items()}
    layers: dict[str, int] = {}
    for name, size in sizes.items():
        if (layer := layer_of(name)) is not None:
            layers[str(layer)] = layers.get(str(layer), 0) + size
    total = sum(sizes.values())
    return None if at_least(total, layers) > room else len(staying(total, layers, room))


def _measured(home: Path) -> Iterator[str]:
    cost = run([sys.executable, "-m", "benchmarks.runners.chat", str(home)], ROOT)
    yield f"`python -m benchmarks.chat --size {home.name}`: anonymous memory of the whole process in float32, after"
    yield from ("", "| | MB |", "|---|---|")
    yield from (f"| {step} | {size >> 20:,} |" for step, size in cost.said["held"].items())
    yield f"| at the peak | {cost.anonymous + cost.said['held']['imports'] >> 20:,} |"
    yield from ("", "Chat said: " + (" ".join(cost.said["told"]) or "nothing, since all lie there together."))


def _counted() -> Iterator[str]:
    yield "Counted in bfloat16 for devices that are free at the start: who is there together, in which order; how many"
    yield "of a model's layers are fetched from host memory for every token; what the live merge holds, and what share"
    yield f"of full rank that is (at most what takes {BUDGET:g} of a model's bytes in float16)."
    yield from ("", "| family | device, GB | chat's share, GB | together | layers fetched | live merge, GB | rank |",
                "|---|---|---|---|---|---|---|")  # fmt: skip
    with TemporaryDirectory() as folder:
        for size, gb in DEVICES:
            found = placed(make_hollow(size, Path(folder)), gb * GB)
            groups = "; ".join(", ".join(group) for group in found.groups)
            fetched = "refused" if found.fetched is None else str(found.fetched)
            yield (f"| {size} | {gb} | {divide(gb * GB).chat / GB:.1f} | {groups} | {fetched} | "
                   f"{found.live / GB:.1f} | {found.share:.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
