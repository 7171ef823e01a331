"""The paper's comparison, repeated on Town: `python -m benchmarks.paper [--quick]`.

Trains what is missing, scores the rows that docs/paper.jsonl lacks, and writes docs/paper.md from it. It may be
stopped anywhere and goes on where it was, on another machine too: trained weights are made anew there.
"""

import argparse
import time
from pathlib import Path

from transformers.utils import logging

from benchmarks.paper.rows import ROWS, Row
from benchmarks.paper.training import UNITS, Trainer, Unit
from benchmarks.paper.unit import Probes, run, settle, town_probes
from eval.paper import RESULTS, Record, append, read_records, rows_of
from eval.runs import data_folder

QUICK_STEPS = 5


def run_units(
    units: list[Unit],
    results: Path,
    models: Path,
    probes: Probes,
    steps: int | None = None,
    rows: list[Row] = ROWS,
) -> None:
    for unit in units:
        done = rows_of(read_records(results), (unit.family, unit.paradigm, unit.seed))

        def keep(record: Record, name: str = unit.name) -> None:
            append(record, results)
            side = bin(int(record.passed, 16)).count("1") / len(probes.test.probes)
            print(f"{name}: {record.row} {100 * side:.1f}, {record.cpu_seconds:.0f} s", flush=True)

        began = time.process_time()
        run(Trainer(unit, models, steps), probes, done, keep, rows)
        print(f"{unit.name}: whole, {(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description="The paper's comparison on Town.")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and probes, kept apart, to see that everything runs"
    )
    options = parser.parse_args()
    settle()
    logging.disable_progress_bar()
    home = data_folder() / ("paper-quick" if options.quick else "paper")
    results = home / "results.jsonl" if options.quick else RESULTS
    run_units(UNITS, results, home, town_probes(options.quick), QUICK_STEPS if options.quick else None)


if __name__ == "__main__":
    main()
