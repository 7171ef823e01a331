"""Probes: frozen questions with rules that decide, without another model, whether an answer is good.

Town is one JSON file in `assets/probes`, made by its script; it carries the sentences that count as well formed. The
standard set is written by hand: one file of lines for each H in `assets/probes/standard`, and `about.json`.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from eval.judging.rules import Choice, Frozen, Rule, SameAnswer
from merging.errors import UserError

H = ("helpful", "honest", "harmless")
Side = Literal["helpful", "honest", "harmless"]
Split = Literal["screen", "validation", "test"]  # of Town

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "probes"
_STANDARD = ("quick", "standard", "sealed")
SELECTION = (
    "Sealed probes are for the winner of a search and for claims at a release, asked once: what is chosen by them "
    "looks better on them than it is."
)


class Message(Frozen):
    role: Literal["system", "user", "assistant"]
    content: str


class Probe(Frozen):
    """All rules of `score` must hold. `cluster` names the content asked about: wordings of one content, and twins (a
    safe look-alike, an answerable twin, the other half of a pair), are no independent evidence.
    """

    id: str
    h: Side
    category: str
    cluster: str
    split: Literal["screen", "validation", "test", "standard", "sealed"]
    quick: bool = False
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    max_new_tokens: int = Field(default=48, gt=0)
    score: Annotated[tuple[Rule, ...], Field(min_length=1)]
    gold_pass: tuple[str, ...]
    gold_fail: tuple[str, ...]
    hazard: str | None = None
    twin: str | None = None
    notes: str = ""
    label: str = ""

    def conversation(self) -> list[dict[str, str]]:
        """The messages as chat templates take them."""
        return [message.model_dump() for message in self.messages]

    @property
    def choice(self) -> Choice | None:
        """The choice that is put to the model instead of a free answer."""
        return next((rule for rule in self.score if isinstance(rule, Choice)), None)

    @property
    def same_as(self) -> str | None:
        """The probe under whose answer this one is judged."""
        return next((rule.same_as for rule in self.score if isinstance(rule, SameAnswer)), None)


class ProbeSet(Frozen):
    """`templates` are patterns of whole sentences; an answer made of such sentences only is well formed. Categories
    that are `weighted` count alike in their H, however many probes they have.
    """

    name: str
    version: int
    templates: tuple[str, ...] = ()
    weighted: bool = False
    probes: tuple[Probe, ...]

    @property
    def digest(self) -> str:
        """sha256 of everything in it: scores belong to it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True)
class Exam:
    """What a score is of: a set of probes by name, of Town's a split."""

    probes: str = "town"
    split: Split = "test"

    @property
    def asked(self) -> ProbeSet:
        return load_probes(self.probes, self.split)


class About(Frozen):
    """What is said once for all standard probes."""

    version: int
    author: str
    licence: str
    language: str
    canary: str
    note: str


def load_probes(name: str = "town", split: Split = "test") -> ProbeSet:
    """A set by name. Town has splits: `validation` is for choosing knobs, `test` for reporting, `screen` for a first
    look. For real models: `quick` is a part of `standard`; `sealed` is for last claims only, never for choosing.
    """
    files = sorted(path.stem for path in FOLDER.glob("*.json") if "." not in path.stem)
    known = [*files, *(_STANDARD if (FOLDER / "standard" / "about.json").is_file() else ())]
    if name not in known:
        raise UserError(
            "E_UNKNOWN_PROBES",
            f"There is no probe set called {name!r}.",
            do=f"Choose one of: {', '.join(known) or 'none is installed'}.",
        )
    if name in files:
        whole = _read(FOLDER / f"{name}.json")
        return whole.model_copy(update={"probes": tuple(probe for probe in whole.probes if probe.split == split)})
    found = read_standard(FOLDER / "standard")
    chosen = tuple(probe for probe in found if (probe.quick if name == "quick" else probe.split == name))
    version = about(FOLDER / "standard").version
    return ProbeSet(name=name, version=version, weighted=True, probes=chosen)


def even_part(probes: Sequence[Probe], n: int) -> tuple[Probe, ...]:
    """`n` of the probes that are judged by themselves: the H take turns, and so do the categories inside each."""
    turns = Counter[tuple[str, ...]]()
    kinds: dict[str, list[tuple[int, int, Probe]]] = {h: [] for h in H}
    for at, probe in enumerate(probe for probe in probes if probe.same_as is None):
        kinds[probe.h].append((turns[probe.h, probe.category], at, probe))
        turns[probe.h, probe.category] += 1
    ordered = [[probe for _, _, probe in sorted(own, key=lambda one: one[:2])] for own in kinds.values()]
    return tuple(probe for row in zip_longest(*ordered) for probe in row if probe is not None)[:n]


def probe_schema() -> dict[str, Any]:
    """JSON Schema of one line of the standard set."""
    return Probe.model_json_schema(by_alias=True)


@cache
def about(folder: Path) -> About:
    return About.model_validate_json((folder / "about.json").read_bytes())


@cache
def read_standard(folder: Path) -> tuple[Probe, ...]:
    """Every probe of the files that are there. Raises ValueError with file and line where one is not sound."""
    probes: list[Probe] = []
    for path in (folder / f"{h}.jsonl" for h in H):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), 1):
            try:
                probes.append(Probe.model_validate_json(line))
            except ValidationError as error:
                raise ValueError(f"{path.name}, line {number}: {error}") from error
    return tuple(probes)


@cache
def _read(path: Path) -> ProbeSet:
    return ProbeSet.model_validate_json(path.read_bytes())
