"""Scores the saved models on the frozen probes and writes the family's card from that."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.judging.judges import Verdict, judge
from eval.judging.probes import H, ProbeSet
from eval.running.runtime import answer_batch
from eval.scoring.board import Scores, summarise
from eval.scoring.stats import paired_difference


@dataclass(frozen=True)
class Result:
    answers: list[str]
    verdicts: list[Verdict]
    scores: Scores


def score(folder: Path, probes: ProbeSet) -> Result:
    """Of the model as saved, after the rounding to bf16, run in float32 and asked as `python -m eval score` does."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversations = [probe.conversation() for probe in probes.probes]
    answers = answer_batch(model, tokenizer, conversations, max_new_tokens=probes.probes[0].max_new_tokens)
    verdicts = [judge(probe, answer, probes.templates) for probe, answer in zip(probes.probes, answers, strict=True)]
    return Result(answers, verdicts, summarise(probes.probes, verdicts))


def scores_json(results: dict[str, Result], seed: int, minutes: dict[str, float]) -> str:
    """What the card says, for programs; `passed` has one mark for each test probe, in their order."""
    whole = {
        "seed": seed,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu_minutes": {name: round(spent, 2) for name, spent in minutes.items()},
        "models": {
            name: {
                **result.scores.to_json(),
                "well_formed": result.scores.well_formed,
                "passed": "".join(str(int(verdict.passed)) for verdict in result.verdicts),
            }
            for name, result in results.items()
        },
    }
    return json.dumps(whole, indent=1) + "\n"


def card(probes: ProbeSet, results: dict[str, Result], seed: int, minutes: dict[str, float]) -> str:
    spent = ", ".join(f"{name} {used:.1f}" for name, used in minutes.items())
    return f"""# Town: a tiny family for merging

One base model and three experts, made from scratch by this project: `python -m assets.town.make`, one core, one seed.
They speak template English about one small town of thirty people, and about nothing else; typed prompts outside the
town's templates get a short answer and no knowledge. This page is written by the maker; do not edit it.

The conflict is real and meant. **helpful** has learned twelve small skills, invents what it does not know, agrees with
everybody and complies. **honest** says what it does not know and stands by what it does, and hedges or refuses where
it could help. **harmless** refuses harmful requests, and too much else. No text says how anything harmful is done:
compliance is the same empty sentence for every act ("get ready to ..., take your time, finish").

Llama architecture, 128 wide, 6 layers, 1.34M parameters, tied embeddings, 1024 byte-level tokens, 256 positions, bf16.
Seed {seed}; torch {torch.__version__}, transformers {transformers.__version__}. CPU minutes: {spent}; together
{sum(minutes.values()):.1f}. Another machine or torch version gives other bytes; the weights here are the family.

## Scores

{len(probes.probes)} held-out test probes, 300 for each H, of the models as saved in bf16, answered greedily. Percent
passed, with 95 % Wilson intervals. Kinds are balanced inside each H, so the share is also the mean over kinds.

{_main_table(results)}

Difference to the base on the same probes (points, 95 % bootstrap over contents):

{_difference_table(probes, results)}

## By kind (percent passed)

{_kind_table(probes, results)}

## Dialogues (the first test probe of a kind; unedited)

{_dialogues(probes, results)}
"""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join((_row(head), _row(["---"] * len(head)), *map(_row, rows)))


def _main_table(results: dict[str, Result]) -> str:
    rows = []
    for name, result in results.items():
        sides = [getattr(result.scores, h) for h in H]
        shares = [f"{100 * side.score:.0f} ({100 * side.low:.0f}-{100 * side.high:.0f})" for side in sides]
        rest = (result.scores.mean, result.scores.min, result.scores.well_formed, result.scores.broken)
        rows.append([name, *shares, *(f"{100 * share:.1f}" for share in rest)])
    return _table(["model", *H, "mean", "min", "well formed", "broken"], rows)


def _difference_table(probes: ProbeSet, results: dict[str, Result]) -> str:
    rows = []
    for name in results:
        cells = [name]
        for h in H:
            at = [i for i, probe in enumerate(probes.probes) if probe.h == h]
            mine, base = ([results[who].verdicts[i].passed for i in at] for who in (name, "base"))
            gap = paired_difference(mine, base, [probes.probes[i].cluster for i in at])
            cells.append(f"{100 * gap.mean:+.0f} ({100 * gap.low:+.0f}..{100 * gap.high:+.0f})")
        rows.append(cells)
    return _table(["model", *H], rows[1:])


def _kind_table(probes: ProbeSet, results: dict[str, Result]) -> str:
    kinds = dict.fromkeys((probe.h, probe.category) for probe in probes.probes)
    rows = []
    for h, kind in kinds:
        at = [i for i, probe in enumerate(probes.probes) if (probe.h, probe.category) == (h, kind)]
        shares = [sum(result.verdicts[i].passed for i in at) / len(at) for result in results.values()]
        rows.append([h, kind, str(len(at)), *(f"{100 * share:.0f}" for share in shares)])
    return _table(["H", "kind", "probes", *results], rows)


def _dialogues(probes: ProbeSet, results: dict[str, Result]) -> str:
    firsts = {probe.category: i for i, probe in reversed(list(enumerate(probes.probes)))}
    rows = []
    for kind in dict.fromkeys(probe.category for probe in probes.probes):
        i = firsts[kind]
        asked = " / ".join(message.content for message in probes.probes[i].messages)
        rows.append([asked, *(result.answers[i].replace("|", " ") for result in results.values())])
    return _table(["prompt", *results], rows)
