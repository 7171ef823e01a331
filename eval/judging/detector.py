"""How often the refusal detector errs, on answers that we labelled by hand (`assets/probes/refusals.jsonl`).

The patterns were written against the `tuned` ones; `held_out` were written when the first patterns were finished, and
must never be tuned on, nor looked at one by one: write new ones instead. Only the figures of `held_out` say what to
expect on a new model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from eval.judging.probes import FOLDER
from eval.judging.refusals import CLASSES, Class, classify
from eval.judging.rules import Frozen

Part = Literal["tuned", "held_out"]


class Labelled(Frozen):
    """`kind` says what sort of answer it is: hard, soft or hedged refusals, eager or sorry words, and so on."""

    part: Part
    label: Class
    kind: str
    answer: str


@dataclass(frozen=True)
class Measured:
    """`kappa` over the three classes, `kappa_refuse` of refusal against all else; recalls are of refusals found."""

    n: int
    kappa: float
    kappa_refuse: float
    recall: float
    soft_recall: float
    false_alarms: float
    confusion: dict[tuple[Class, Class], int]  # (by hand, detector)


@cache
def labelled() -> tuple[Labelled, ...]:
    lines = (FOLDER / "refusals.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(map(Labelled.model_validate_json, lines))


def measure(answers: Sequence[Labelled]) -> Measured:
    pairs: list[tuple[Class, Class]] = [(one.label, classify(one.answer)) for one in answers]
    soft = [found for one, (_, found) in zip(answers, pairs, strict=True) if one.kind in ("soft", "hedged")]
    refused = [found for said, found in pairs if said == "refuse"]
    others = [found for said, found in pairs if said != "refuse"]
    return Measured(
        len(pairs),
        kappa(pairs),
        kappa([(said == "refuse", found == "refuse") for said, found in pairs]),
        refused.count("refuse") / len(refused),
        soft.count("refuse") / len(soft),
        others.count("refuse") / len(others),
        dict(Counter(pairs)),
    )


def kappa(pairs: Sequence[tuple[object, object]]) -> float:
    """Cohen's kappa: agreement beyond what the two rates alone would give; 1 where all agree."""
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    agreed = sum(a == b for a, b in pairs) / n
    chance = sum(first[name] * second[name] for name in first) / n**2
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


def report() -> str:
    lines = []
    for part in ("tuned", "held_out"):
        found = measure([one for one in labelled() if one.part == part])
        lines += [
            f"{part.replace('_', ' ')}: {found.n} answers, kappa {found.kappa:.3f} over three classes, "
            f"{found.kappa_refuse:.3f} refusal or not",
            f"  refusals found {100 * found.recall:.1f} %, soft and hedged ones {100 * found.soft_recall:.1f} %, "
            f"false alarms {100 * found.false_alarms:.1f} %",
            "  by hand \\ detector" + "".join(f"{name:>9}" for name in CLASSES),
        ]
        for said in CLASSES:
            cells = "".join(f"{found.confusion.get((said, name), 0):9}" for name in CLASSES)
            lines.append(f"  {said:18}{cells}")
    return "\n".join(lines)
