"""Runs units, one after the other or side by side; each row goes into the results as soon as it is scored."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from benchmarks.paper.rows import ROWS, Row
from benchmarks.paper.training import UNITS, Trainer, Unit
from benchmarks.paper.unit import Probes, run, settle
from eval.paper.records import Record, append, of_unit, read_records


def run_unit(
    unit: Unit, home: Path, results: Path, probes: Probes, steps: int | None = None, rows: list[Row] = ROWS
) -> None:
    """Scores the rows that the results lack. `home` holds trained weights."""
    began = time.process_time()

    def keep(record: Record) -> None:
        append(record, results)
        side = bin(int(record.passed, 16)).count("1") / len(probes.test.probes)
        print(f"{unit.name}: {record.row} {100 * side:.1f}, {record.cpu_seconds:.0f} s", flush=True)

    found = of_unit(read_records(results), (unit.family, unit.paradigm, unit.seed))
    run(Trainer(unit, home, steps), probes, found, keep, rows)
    print(f"{unit.name}: whole, {(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)


def each_done(work: Callable[[Unit], None], jobs: int) -> Iterator[None]:
    """Yields whenever a unit is whole; one process does without others, so that it can be paused."""
    if jobs == 1:
        yield from map(work, UNITS)
    else:
        with ProcessPoolExecutor(jobs, get_context("spawn"), _begin) as pool:
            yield from (one.result() for one in as_completed([pool.submit(work, unit) for unit in UNITS]))


def _begin() -> None:
    """In a process of the pool: as in the first one, and it ends with the first one, however that was ended."""
    settle()
    first = parent_process()
    assert first
    Thread(target=lambda: (first.join(), os._exit(1)), daemon=True).start()
