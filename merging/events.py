"""What long work reports while it runs: typed, small, and one JSON object each on the command line."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from merging.words import count, first_names


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
class Testing:
    """The reload test begins."""


@dataclass(frozen=True)
class Reloaded:
    """A finished export as transformers loads it from disk.

    logit_difference: the largest against the merge computed anew, with `bound` its limit; None where the sources were
    not at hand. compared: tensors of the export that were computed anew. ends: whether a chat turn ended by itself;
    None where there is no tokenizer to ask with.
    """

    n_parameters: int
    n_parameters_base: int | None
    logit_difference: float | None
    bound: float | None
    compared: int
    n_tensors: int
    template: bool
    ends: bool | None
    seconds: float

    def words(self) -> list[str]:
        """What was tested, as short sentences."""
        base = self.n_parameters_base
        beside = "" if base is None else ", as many as the base" if base == self.n_parameters else f" (base: {base:,})"
        found = [f"It loads with transformers and has {self.n_parameters:,} parameters{beside}."]
        if self.logit_difference is None:
            found.append("It was not compared with its sources, which are not at hand.")
        else:
            part = "" if self.compared == self.n_tensors else f" ({self.compared} of {self.n_tensors} tensors)"
            same = "the same logits, bit for bit"
            if self.logit_difference > 0:
                same = f"logits at most {self.logit_difference:.2g} apart; up to {self.bound:.2g} is rounding"
            found.append(f"The merge computed anew{part} gives {same}.")
        if self.ends is not None:
            how = "its chat template" if self.template else "plain lines, because there is no chat template"
            found.append(f"A chat turn with {how} {'ends' if self.ends else 'does not end'} by itself.")
        return found


@dataclass(frozen=True)
class LoraLoss:
    """Frobenius norms of what is lost, relative to the norm of merged - base.

    matrices: for each matrix, relative to its own delta. held: over all matrices that the LoRA holds. left_out: the
    share of the whole delta's norm that lies in tensors it cannot hold. whole: both together.
    """

    rank: int
    matrices: dict[str, float]
    held: float
    left_out: float
    left_out_names: tuple[str, ...]
    whole: float

    def words(self) -> list[str]:
        found = [f"Rank {self.rank}: {100 * self.held:.2f} % of the norm of {count(self.matrices, 'delta')} is lost."]
        if self.left_out_names:
            names = first_names(list(self.left_out_names))
            found.append(
                f"{count(self.left_out_names, 'changed tensor')} cannot be held and stay the base's ({names}): "
                f"{100 * self.left_out:.2f} % of the whole delta's norm."
            )
        return [*found, f"In all {100 * self.whole:.2f} % of the norm of merged - base is lost."]


@dataclass(frozen=True)
class Finished:
    folder: str
    digest: str
    n_tensors: int
    seconds: float


@dataclass(frozen=True)
class DownloadStarted:
    source: str
    commit: str
    n_files: int
    n_bytes: int
    n_kept: int  # of these bytes are on this machine already


@dataclass(frozen=True)
class Downloading:
    source: str
    file: str
    done: int  # bytes of the whole model, those kept from before included
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class Downloaded:
    source: str
    commit: str
    folder: str
    n_bytes: int  # fetched now
    seconds: float


@dataclass(frozen=True)
class Uploading:
    repo: str
    file: str
    done: int  # bytes of the files that are there
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class Pushed:
    repo: str
    url: str
    commit: str
    private: bool
    n_files: int


Event = (
    Started | TensorDone | ShardWritten | Notice | Testing | Reloaded | LoraLoss | Finished
    | DownloadStarted | Downloading | Downloaded | Uploading | Pushed
)  # fmt: skip


def to_json(event: Any) -> dict[str, Any]:
    """`TensorDone(...)` as `{"event": "tensor_done", ...}`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **dataclasses.asdict(event)}
