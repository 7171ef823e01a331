"""How far a calibration is."""

from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True)
class Calibrating:
    """How far it is: `step` says what is counted."""

    step: str
    done: int
    total: int
    seconds_left: float | None


class Steps:
    """Counts parts of the model, for a progress bar."""

    def __init__(self, total: int) -> None:
        self._done, self._total, self._began = 0, total, perf_counter()

    def skip(self, n: int) -> None:
        """Parts that an earlier run measured."""
        self._total -= n

    def one(self) -> Calibrating:
        self._done += 1
        left = (perf_counter() - self._began) / self._done * (self._total - self._done)
        return Calibrating("layers", self._done, self._total, left)
