"""What long work reports while it runs: typed, small, and one JSON object each on the command line."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Started:
    n_tensors: int
    n_bytes: int


@dataclass(frozen=True)
class TensorDone:
    name: str
    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class ShardWritten:
    file: str
    n_bytes: int


@dataclass(frozen=True)
class Notice:
    text: str


@dataclass(frozen=True)
class Finished:
    folder: str
    digest: str
    n_tensors: int
    seconds: float


Event = Started | TensorDone | ShardWritten | Notice | Finished


def to_json(event: Any) -> dict[str, Any]:
    """`TensorDone(...)` as `{"event": "tensor_done", ...}`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **dataclasses.asdict(event)}
