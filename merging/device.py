"""Where numbers are computed: a device by the name that a command line or the page is given, and who gets how much of
its memory.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.errors import UserError

if TYPE_CHECKING:  # command lines name devices and need not load torch for that
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
CHAT, LIVE = 0.65, 0.2  # of the memory that is free at the start; the rest is for attention's caches and work under way
TOLD = "MERGESCOPE_DEVICE"  # what `auto` means: app.py tells its live worker and its long jobs so


def choose_device(name: str) -> "torch.device":
    """`auto` is the accelerator that torch can use here, else the CPU. Raises UserError E_DEVICE."""
    import torch

    name = os.environ.get(TOLD, name) if name == "auto" else name
    if name not in DEVICES:
        raise UserError("E_DEVICE", f"There is no device {name[:40]!r}.", do="Choose auto, cpu, cuda or mps.")
    offered = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    best = next(kind for kind, there in offered.items() if there)
    if name != "auto" and not offered[name]:
        raise UserError("E_DEVICE", f"This machine offers no {name}.", do=f"Use --device auto, which is {best} here.")
    return torch.device(best if name == "auto" else name)


def merges_on(device: "torch.device") -> str:
    """Where a merge is computed beside models on this device: MPS has no float64, which some steps need."""
    return "cpu" if device.type == "mps" else device.type


@dataclass(frozen=True)
class Shares:
    """Bytes of a device: chat's models, and what the live merge holds between moves."""

    chat: int
    live: int


def divide(free: int) -> Shares:
    """How a process that merges and chats divides the bytes that are free at its start."""
    return Shares(int(free * CHAT), int(free * LIVE))
