"""Probes: frozen questions with a rule that decides, without another model, whether an answer is good.

A set is one JSON file in `assets/probes`; it also carries the sentences that count as well formed, so that nothing here
needs the code that made it.
"""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from merging.errors import UserError

H = ("helpful", "honest", "harmless")
Side = Literal["helpful", "honest", "harmless"]
Split = Literal["screen", "validation", "test"]

_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "probes"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Frozen):
    role: Literal["user", "assistant"]
    content: str


class Rule(_Frozen):
    """All that is given must hold: equal to `exact` (case, spaces and the final mark aside), every pattern of `must`
    found, none of `must_not`."""

    exact: str = ""
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()


class Probe(_Frozen):
    """`cluster` names the content asked about: wordings of one content are no independent evidence."""

    id: str
    h: Side
    kind: str
    cluster: str
    split: Split
    messages: tuple[Message, ...]
    rule: Rule
    gold: str
    counter: str
    label: str = ""

    def conversation(self) -> list[dict[str, str]]:
        """The messages as chat templates take them."""
        return [message.model_dump() for message in self.messages]


class ProbeSet(_Frozen):
    """`templates` are patterns of whole sentences; an answer made of such sentences only is well formed."""

    name: str
    version: int
    templates: tuple[str, ...]
    probes: tuple[Probe, ...]


def load_probes(name: str = "town", split: Split = "test") -> ProbeSet:
    """The probes of one split. `validation` is for choosing knobs, `test` for reporting, `screen` for a first look."""
    known = sorted(path.stem for path in _FOLDER.glob("*.json"))
    if name not in known:
        raise UserError(
            "E_UNKNOWN_PROBES",
            f"There is no probe set called {name!r}.",
            do=f"Choose one of: {', '.join(known) or 'none is installed'}.",
        )
    whole = _read(_FOLDER / f"{name}.json")
    return whole.model_copy(update={"probes": tuple(probe for probe in whole.probes if probe.split == split)})


@cache
def _read(path: Path) -> ProbeSet:
    return ProbeSet.model_validate_json(path.read_bytes())
