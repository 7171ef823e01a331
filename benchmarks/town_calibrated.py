"""Calibrated merges and routing on the Town that ships, also with calibration text from elsewhere.

    python -m benchmarks.town_calibrated

Writes benchmarks/town_calibrated.md: settings chosen on validation probes, all scored once on test probes and paired
with the mixtures and merges of `docs/paper.jsonl` (`make paper`). One kind of text needs the second family's experts:
where the data folder lacks them they are trained first, which takes four minutes.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from assets.town.mixes import text
from benchmarks.paper.calibrating import WriteTexts, own_texts
from benchmarks.paper.report import chosen, differences, scores
from benchmarks.paper.rows import ROWS, Row, Setting
from benchmarks.paper.training import Trainer, Unit
from benchmarks.paper.unit import run, settle, town_probes
from eval.calibrating.texts import Text, answer, read_texts
from eval.judging.probes import H, load_probes
from eval.paper.pairs import RIVALS, pairs
from eval.paper.records import Record, of_unit, read_records
from eval.paper.table import compare
from eval.running.models import Models
from eval.running.runtime import encode, render
from eval.scoring.runs import data_folder
from merging.models import open_model

RESULTS = Path(__file__).with_suffix(".md")
SHIPPED, SECOND = Unit("llama", "full", 0), Unit("gpt_neox", "full", 0)
CALIBRATED = [row for row in ROWS if any(setting.texts for setting in row.grid)]
READER, LEARNER = (next(row for row in ROWS if row.method == method) for method in ("regmean_pp", "regmean_gains"))
_DRAWS = 20_000  # p-values must be fine enough for so many differences
_LONGEST = 128  # tokens of a question, of the 256 that Town's models can read and write


def of_the_second_family(models: Models, _: Sequence[str], each: int, log: Path) -> None:
    """The same prompts, answered by experts of another base, architecture and training run."""
    trainer = Trainer(SECOND, data_folder() / "paper")
    own_texts(models, [trainer.expert(h) for h in H], each, log)


def of_everybody(models: Models, experts: Sequence[str], each: int, log: Path) -> None:
    """Prompts of all three skills for each expert: nothing says who should answer what."""
    together = [one for own in read_texts("town", H, each) for one in own]
    shares = [random.Random(h).sample(together, each) for h in H]
    _answered(models, experts, [[one.model_copy(update={"expert": h}) for one in own]
                                for h, own in zip(H, shares, strict=True)], log)  # fmt: skip


def of_the_base(_: Models, __: Sequence[str], each: int, log: Path) -> None:
    """Plain text about Town, as the base read it: the same for each expert, no questions and no answers."""
    rng = random.Random("plain text")
    lines = [text(rng).answer for _ in range(each)]
    log.write_text("".join(json.dumps({"expert": h, "text": line}) + "\n" for h in H for line in lines))


def of_another_world(models: Models, experts: Sequence[str], each: int, log: Path) -> None:
    """Real English questions of the standard probes, by H; Town's experts have no idea of them."""
    tokenizer = models.model(open_model(experts[0], Path())).tokenizer
    asked = [probe for probe in load_probes("standard").probes
             if len(encode(tokenizer, *render(tokenizer, probe.conversation()))) <= _LONGEST]  # fmt: skip
    own = [[Text(expert=h, messages=probe.messages) for probe in asked if probe.h == h][:each] for h in H]
    _answered(models, experts, own, log)


TEXTS: dict[str, WriteTexts] = {
    "second family's answers": of_the_second_family,
    "everybody's prompts": of_everybody,
    "plain Town text": of_the_base,
    "English questions": of_another_world,
}


def elsewhere() -> list[tuple[Row, WriteTexts]]:
    """The rows that read texts from elsewhere; gains are learned on answers, which plain text has not."""
    return [(replace(row, name=f"{row.name}, {name}", grid=_many(row)), texts)
            for row in (READER, LEARNER) for name, texts in TEXTS.items()
            if row is READER or texts is not of_the_base]  # fmt: skip


def _many(row: Row) -> tuple[Setting, ...]:
    """Its settings with the most texts."""
    return tuple(setting for setting in row.grid if setting.texts == max(one.texts for one in row.grid))


def _answered(models: Models, experts: Sequence[str], texts: list[list[Text]], log: Path) -> None:
    for _ in answer(models, [open_model(expert, Path()) for expert in experts], texts, log):
        pass


def main() -> None:
    settle()
    probes, trainer = town_probes(), Trainer(SHIPPED, data_folder() / "paper")
    records = of_unit(read_records(), (SHIPPED.family, SHIPPED.paradigm, SHIPPED.seed))

    def keep(record: Record) -> None:
        records.append(record)
        print(f"{record.row}: {record.cpu_seconds:.0f} s", flush=True)

    run(trainer, probes, records, keep, CALIBRATED)
    foreign = elsewhere()
    for row, texts in foreign:
        run(trainer, probes, records, keep, [row], texts)
    rows = [*CALIBRATED, *(row for row, _ in foreign)]
    beside = {"base", "expert", "mixture", "router", *(row.method for row in CALIBRATED)}
    shown = [one for one in records if one.row in RIVALS or one.method in beside]
    comparison = compare(shown, probes.test.probes, _DRAWS)
    assert comparison
    sets = "\n".join(f"- *{name}*: {texts.__doc__}" for name, texts in TEXTS.items())
    RESULTS.write_text(f"""# Calibrated merges on the Town that ships

Made by `python -m benchmarks.town_calibrated`: at most six settings each, the best by the mean over 360 validation
probes, then 900 test probes once. Mixtures, TSV-M, RESM and the experts are those of `docs/paper.jsonl`, of the same
unit. One training seed: the intervals know nothing of the spread over seeds. A closed toy world of tiny models.

{scores(comparison)}

Without a word behind it a calibrated merge reads prompts of each expert's own skill, which that expert answers itself,
from the training side of the world that the probes ask about. Text from elsewhere:

{sets}

## Pair by pair

{differences(pairs(comparison, READER.name, LEARNER.name))}

## What was chosen

{chosen(records, rows)}
""", encoding="utf-8")  # fmt: skip
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
