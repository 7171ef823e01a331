"""What a slider move yields, in this order."""

from dataclasses import dataclass

from merging.look import Look, MatrixView
from merging.stale import What


@dataclass(frozen=True)
class Stale:
    """What a move invalidates, before any work is done; "diagonal" is one vector for each matrix."""

    what: What


@dataclass(frozen=True)
class SampleReady:
    """A first look at a family that takes long to read, until its first exact one is there; its tier says from what."""

    look: Look


@dataclass(frozen=True)
class FocusReady:
    """The open matrix, ahead of the others; a sketch first where an exact one takes long."""

    view: MatrixView
    digest: str
    seconds: float


@dataclass(frozen=True)
class LookReady:
    look: Look


@dataclass(frozen=True)
class FoldedReady:
    """The folds of `digest` are known: chat answers with them until the weights are written."""

    digest: str
    seconds: float


@dataclass(frozen=True)
class StateReady:
    """The merged weights of `digest` are in memory: chat answers with them from now on."""

    digest: str
    seconds: float


LiveEvent = Stale | SampleReady | FocusReady | LookReady | FoldedReady | StateReady
