"""The committed results of the paper's comparison on Town: one record for each row of each unit."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from eval.judging.rules import Frozen

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "paper.jsonl"
DESIGN = 1  # goes up when schedules, mixtures or probes change: records of another design do not count


class Record(Frozen):
    """A model's passes on the test probes, in their order. A unit is (family, paradigm, seed).

    validation: mean score of each setting that was tried; empty where none was scored.
    """

    design: int
    family: str
    paradigm: Literal["full", "lora"]
    seed: int
    row: str
    method: str  # or base, expert, mixture, router
    version: int
    setting: dict[str, object]
    validation: tuple[float, ...]
    passed: str
    cpu_seconds: float

    @property
    def unit(self) -> tuple[str, str, int]:
        return self.family, self.paradigm, self.seed


def marks(passed: Sequence[bool]) -> str:
    """Hexadecimal digits, four probes each, the first probe in the highest bit; filled up with failures."""
    bits = "".join(str(int(one)) for one in passed)
    return "".join(f"{int(bits[at : at + 4].ljust(4, '0'), 2):x}" for at in range(0, len(bits), 4))


def unmarked(digits: str, n: int) -> list[bool]:
    return [bit == "1" for digit in digits for bit in f"{int(digit, 16):04b}"][:n]


def read_records(path: Path = RESULTS) -> list[Record]:
    """Whole lines of the present design; a line that was cut short by the end of a run is no record."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    records = (Record.model_validate_json(line) for line in lines)
    return [record for record in records if record.design == DESIGN]


def mend(path: Path = RESULTS) -> None:
    """Takes away a last line that was cut short; before anybody appends."""
    if path.is_file():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def append(record: Record, path: Path = RESULTS) -> None:
    """In one write, so that several processes may append."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(record.model_dump_json().encode() + b"\n")


def of_unit(records: Iterable[Record], unit: tuple[str, str, int]) -> list[Record]:
    return [record for record in records if record.unit == unit]
