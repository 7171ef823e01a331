"""One unit of the comparison: its models are scored, its merges tuned on validation probes and then scored once."""

import time
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from benchmarks.paper.answers import passes
from benchmarks.paper.rows import ROWS, Row, Setting
from benchmarks.paper.training import MIXTURES, Trainer
from eval.models import Merged, Models
from eval.paper import DESIGN, Record, marks
from eval.probes import H, ProbeSet, load_probes
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
    trainer: Trainer, probes: Probes, done: Container[str], keep: Callable[[Record], None], rows: list[Row] = ROWS
) -> None:
    """Scores every row that is not in `done`, and hands over each as soon as it is there."""
    models = Models("cpu")
    unit = trainer.unit

    def passed(source: str | Plan, asked: ProbeSet) -> list[bool]:
        if isinstance(source, Plan):
            model = models.model(Merged(source, lambda: dict(merged_tensors(source))))
        else:
            model = models.model(open_model(source, Path()))
        return passes(model.module, model.tokenizer, asked)

    def record(row: str, method: str, setting: Setting, tried: list[float], result: list[bool], began: float) -> None:
        version = METHODS[method].version if method in METHODS else 0
        keep(
            Record(
                design=DESIGN,
                family=unit.family,
                paradigm=unit.paradigm,
                seed=unit.seed,
                row=row,
                method=method,
                version=version,
                setting=asdict(setting) if method in METHODS else {},
                validation=tuple(round(score, 4) for score in tried),
                passed=marks(result),
                cpu_seconds=round(time.process_time() - began, 1),
            )
        )

    trained: list[tuple[str, str, Callable[[], str]]] = [("base", "base", lambda: str(unit.base))]
    trained += [(h, "expert", lambda h=h: trainer.expert(h)) for h in H]
    trained += [(name, "mixture", lambda name=name: trainer.mixture(name)) for name in MIXTURES]
    for name, kind, source in trained:
        if name not in done:
            began = time.process_time()
            record(name, kind, Setting(), [], passed(source(), probes.test), began)
    experts = [trainer.expert(h) for h in H]
    for row in rows:
        if row.name not in done:
            began = time.process_time()
            plans = [make_plan(recipe(row.method, setting, str(unit.base), experts, unit.seed)) for setting in row.grid]
            tried = [_mean(passed(plan, probes.validation)) for plan in plans] if len(plans) > 1 else []
            best = tried.index(max(tried)) if tried else 0
            record(row.name, row.method, row.grid[best], tried, passed(plans[best], probes.test), began)


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
