"""Public benchmarks through lm-evaluation-harness, an optional extra, on a folder or on a merge that is not written.

lm-eval asks and marks item by item; what is drawn, scores, intervals and differences are ours.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.public.tasks import chosen, named
from eval.scoring.score import Loader, opened_with
from eval.scoring.stats import Difference, Interval, mcnemar, paired_difference, wilson
from merging.device import choose_device
from merging.errors import UserError


@dataclass(frozen=True)
class Running:
    model: str
    items: int  # to answer


@dataclass(frozen=True)
class TaskScore:
    """Mean over `n` of the task's `of` documents with its 95 % interval. `items` are the marks by the document's hash:
    lm-eval numbers what was drawn anew, so numbers say nothing; a document's second occurrence ends in "#2".
    """

    task: str
    metric: str
    higher_is_better: bool
    n: int
    of: int
    score: float
    low: float
    high: float
    items: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True)
class Benchmarked:
    model: str
    tasks: tuple[TaskScore, ...]


@dataclass(frozen=True)
class Against:
    """The merge less another model on the same `n` documents; `p` is McNemar's mid-p, None where marks are not 0/1."""

    model: str
    task: str
    n: int
    difference: Difference
    p: float | None


def benchmark(
    model_or_recipe: str,
    tasks: str,
    samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    sources: bool = False,
    folder: Path | None = None,
    run_code: bool = False,
) -> Iterator[Running | Benchmarked | Against]:
    """Runs tasks (names with commas, or dimensions) on `samples` documents of each, drawn once by `seed`.

    `folder` holds tasks of one's own as lm-eval writes them; their code is run. Data sets must be on this machine
    unless lm-eval may fetch them (HF_HUB_OFFLINE). Raises UserError for what is missing, by name.
    """
    from eval.public.lm_tasks import load_tasks, run  # says how to install lm-eval where it is absent

    models = opened_with(model_or_recipe, sources)
    loader = Loader(choose_device(device).type)
    loaded = load_tasks(named(tasks), folder, run_code)
    sizes = {name: len(task.eval_docs) for name, task in loaded.items()}
    drawn = draw(sizes, samples, seed)
    first = None
    for name, model in models.items():
        yield Running(name, sum(map(len, drawn.values())))
        marked = run(loader.model(model), loaded, drawn, run_code)
        scores = tuple(task_score(task, marked[task], len(drawn[task]), sizes[task]) for task in drawn)
        yield Benchmarked(name, scores)
        first = first or scores
        if first is not scores:
            yield from (against(name, merge, other) for merge, other in zip(first, scores, strict=True))


def draw(sizes: Mapping[str, int], samples: int | None, seed: int) -> dict[str, list[int]]:
    """Which documents of each task are asked: never the first ones, always the same, every task named and none empty,
    because lm-eval runs a task in full that is not named or has an empty list.
    """
    if samples is not None and samples < 1:
        raise UserError("E_USAGE", "--samples must be 1 or more.")
    if empty := sorted(task for task, n in sizes.items() if n == 0):
        raise UserError("E_BENCHMARK", f"there are no documents in {', '.join(empty)}.", do="Leave it out.")
    return {
        task: sorted(random.Random(f"{seed} {task}").sample(range(n), min(samples or n, n)))
        for task, n in sizes.items()
    }


def task_score(task: str, logged: Sequence[Mapping[str, Any]], n: int, of: int) -> TaskScore:
    """From lm-eval's log of one task: each document once for each of the task's filters."""
    by_filter: dict[str, list[str]] = {}
    for entry in logged:
        numbers = [name for name in entry["metrics"] if isinstance(entry[name], int | float)]
        by_filter.setdefault(entry["filter"], numbers)
    if not any(by_filter.values()):
        raise UserError("E_BENCHMARK", "its items have no mark that is a number.", where=task, do="Leave it out.")
    how = chosen(task, {name: metrics for name, metrics in by_filter.items() if metrics})
    seen: Counter[str] = Counter()
    items: dict[str, float] = {}
    for entry in logged:
        if entry["filter"] == how.filter:
            seen[entry["doc_hash"]] += 1
            times = seen[entry["doc_hash"]]
            items[entry["doc_hash"] + (f"#{times}" if times > 1 else "")] = float(entry[how.metric])
    if len(items) != n:
        raise UserError("E_BENCHMARK", f"lm-eval marked {len(items)} documents instead of the {n} drawn.", where=task)
    values = list(items.values())
    mean, interval = math.fsum(values) / n, _interval(values, list(items))
    return TaskScore(task, how.metric, how.higher_is_better, n, of, mean, interval.low, interval.high, items)


def against(model: str, merge: TaskScore, other: TaskScore) -> Against:
    """Paired on the documents that both have; a document that occurs twice is one piece of evidence."""
    both = [key for key in merge.items if key in other.items]
    a, b = [merge.items[key] for key in both], [other.items[key] for key in both]
    p = None
    if {*a, *b} <= {0.0, 1.0}:
        p = mcnemar(sum(x > y for x, y in zip(a, b, strict=True)), sum(x < y for x, y in zip(a, b, strict=True)))
    return Against(model, merge.task, len(both), paired_difference(a, b, [key.partition("#")[0] for key in both]), p)


def table(scored: Sequence[Benchmarked], compared: Sequence[Against]) -> str:
    lines = []
    for one in scored:
        lines.append(one.model)
        for task in one.tasks:
            share = f"{100 * task.score:.1f} ({100 * task.low:.0f}-{100 * task.high:.0f})"
            less = "" if task.higher_is_better else ", less is better"
            lines.append(f"  {task.task:28}  {share:17}  {task.n} of {task.of}, {task.metric}{less}")
    for one in compared:
        gap = f"{100 * one.difference.mean:+.1f} ({100 * one.difference.low:+.0f}..{100 * one.difference.high:+.0f})"
        p = "" if one.p is None else f", p {one.p:.3f}"
        lines.append(f"  merge less {one.model}, {one.task}: {gap} on the same {one.n}{p}")
    lines.append(
        "Percent, with 95 % intervals. Public sets are in training data: compare models, trust no single score."
    )
    return "\n".join(lines)


def _interval(values: Sequence[float], keys: Sequence[str]) -> Interval:
    if {*values} <= {0.0, 1.0}:
        return wilson(sum(values), len(values))
    found = paired_difference(values, [0.0] * len(values), keys)
    return Interval(found.low, found.high)
