"""One unit of the comparison: its models are scored, its merges tuned on validation probes and then scored once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers.utils import logging

from benchmarks.paper.answers import passes
from benchmarks.paper.calibrating import Calibrations, WriteTexts, own_texts, routes
from benchmarks.paper.rows import ROUTER, ROWS, Row, Setting
from benchmarks.paper.training import MIXTURES, Trainer, Unit
from eval.calibrating.texts import ROUTED
from eval.judging.probes import H, ProbeSet, load_probes
from eval.paper.records import DESIGN, Record, marks, unmarked
from eval.running.models import Models
from eval.running.sources import Merged
from merging.checkpoint import Checkpoint
from merging.engine import merged_tensors
from merging.methods import METHODS
from merging.models import open_model
from merging.plan import Plan, make_plan
from merging.recipe import Expert, Recipe


@dataclass(frozen=True)
class Probes:
    validation: ProbeSet
    test: ProbeSet


def town_probes(quick: bool = False) -> Probes:
    """The quick ones are the screen's, which come from the validation side."""
    return Probes(
        *(load_probes("town", split) for split in (("screen", "screen") if quick else ("validation", "test")))
    )


def run(
    trainer: Trainer,
    probes: Probes,
    found: Sequence[Record],
    keep: Callable[[Record], None],
    rows: Sequence[Row] = ROWS,
    texts: WriteTexts = own_texts,
) -> None:
    """Scores every row that the unit's records `found` lack, and hands over each as soon as it is there.

    `texts` writes what calibrated merges read.
    """
    models = Models("cpu")
    unit, of = trainer.unit, {record.row: record for record in found}

    def scored(record: Record) -> None:
        of[record.row] = record
        keep(record)

    trained: list[tuple[str, str, Callable[[], str]]] = [("base", "base", lambda: str(unit.base))]
    trained += [(h, "expert", lambda h=h: trainer.expert(h)) for h in H]
    trained += [(name, "mixture", lambda name=name: trainer.mixture(name)) for name in MIXTURES]
    for name, kind, source in trained:
        if name not in of:
            began = time.process_time()
            result = passed(models, open_model(source(), Path()), probes.test)
            scored(record_of(unit, name, kind, {}, [], result, began))
    if ROUTER not in of:
        began = time.process_time()
        result = routed(str(unit.base), {h: of[h] for h in H}, probes.test)
        scored(record_of(unit, ROUTER, "router", {"texts": ROUTED}, [], result, began))
    missing = [row for row in rows if row.name not in of]
    experts = [trainer.expert(h) for h in H] if missing else []
    most = max((setting.texts for row in missing for setting in row.grid), default=0)
    with TemporaryDirectory() as folder:
        calibrations = Calibrations(Path(folder), partial(texts, models, experts, most))
        for row in missing:
            began = time.process_time()
            plans = [plan(row.method, setting, unit, experts, calibrations) for setting in row.grid]
            scored(tuned(unit, row, plans, models, probes, began))


def tuned(unit: Unit, row: Row, plans: Sequence[Plan], models: Models, probes: Probes, began: float) -> Record:
    """The test passes of the row's best setting on validation probes; `plans` are those of its settings."""
    tried = [_mean(passed(models, one, probes.validation)) for one in plans]
    best = tried.index(max(tried))
    return record_of(
        unit, row.name, row.method, asdict(row.grid[best]), tried, passed(models, plans[best], probes.test), began
    )


def record_of(
    unit: Unit, row: str, method: str, setting: dict, tried: Sequence[float], result: list[bool], began: float
) -> Record:
    """began: when its work began, by `time.process_time`."""
    return Record(
        design=DESIGN,
        family=unit.family,
        paradigm=unit.paradigm,
        seed=unit.seed,
        row=row,
        method=method,
        version=METHODS[method].version if method in METHODS else 0,
        setting=setting,
        validation=tuple(round(score, 4) for score in tried),
        passed=marks(result),
        cpu_seconds=round(time.process_time() - began, 1),
    )


def passed(models: Models, source: Checkpoint | Plan, asked: ProbeSet) -> list[bool]:
    """Whether a model or a merge passes each probe."""
    merge = Merged(source, lambda: dict(merged_tensors(source))) if isinstance(source, Plan) else source
    model = models.model(merge)
    return passes(model.module, model.tokenizer, asked)


def routed(base: str, experts: Mapping[str, Record], asked: ProbeSet) -> list[bool]:
    """Whether the expert that a router gives each probe to passes it."""
    said = {h: unmarked(record.passed, len(asked.probes)) for h, record in experts.items()}
    taken = routes(base, [probe.conversation() for probe in asked.probes])
    return [said[h][i] for i, h in enumerate(taken)]


def plan(method: str, setting: Setting, unit: Unit, experts: list[str], calibrations: Calibrations) -> Plan:
    plain = recipe(method, setting, str(unit.base), experts, unit.seed)
    return make_plan(calibrations.of(plain, setting.texts) if setting.texts else plain)


def recipe(method: str, setting: Setting, base: str, experts: list[str], seed: int) -> Recipe:
    known = {knob.key for knob in METHODS[method].knobs}
    if unknown := setting.knobs.keys() - known:
        raise ValueError(f"{method} has no {', '.join(unknown)}")
    weigh = METHODS[method].uses_weight
    models = tuple(Expert(expert, (("weight", weight),) if weigh else ())
                   for expert, weight in zip(experts, setting.weights, strict=True))  # fmt: skip
    return Recipe(method, base, models, tuple(setting.knobs.items()), seed=seed)


def _mean(passed: list[bool]) -> float:
    """Over all probes, which is the mean of the three H: each has as many."""
    return sum(passed) / len(passed)


def settle() -> None:
    """One thread, the same sums in every run, and a log without bars."""
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
