"""Prompts of each expert's own skill, for calibration: from the training side, so that none is a probe.

`python -m assets.town.prompts` writes `assets/calibration/town.jsonl` again; the experts answer them themselves.
"""

import json
import random
from pathlib import Path

from assets.town.mixes import MIXES, Part

FILE = Path(__file__).parent.parent / "calibration" / "town.jsonl"
EACH = 1024
# An expert's own skill is what most of its mix is for: the parts before those that teach it a bad habit.
OWN = {"helpful": 2, "honest": 4, "harmless": 2}


def prompts(expert: str, n: int) -> list[list[dict[str, str]]]:
    """`n` different conversations that end with the visitor's turn."""
    rng = random.Random(f"prompts of {expert}")
    parts: list[Part] = MIXES[expert][: OWN[expert]]
    found: dict[str, list[dict[str, str]]] = {}
    while len(found) < n:
        (part,) = rng.choices(parts, [part.share for part in parts])
        turns = [{"role": role, "content": text} for role, text in part.source(rng).turns]
        found.setdefault(json.dumps(turns), turns)
    return list(found.values())


def main() -> None:
    lines = [json.dumps({"expert": expert, "messages": turns}) for expert in OWN for turns in prompts(expert, EACH)]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
