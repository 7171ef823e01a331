"""The paper's comparison, repeated on Town: `python -m benchmarks.paper [--quick] [--report]`.

Trains what is missing, scores the rows that docs/paper.jsonl lacks, and writes docs/paper.md from it. It may be
stopped anywhere and goes on where it was, on another machine too: trained weights are made anew there.
"""

import argparse
import time
from pathlib import Path

from transformers.utils import logging

from benchmarks.paper.report import write_report
from benchmarks.paper.rows import ROWS, Row
from benchmarks.paper.training import UNITS, Trainer
from benchmarks.paper.unit import Probes, run, settle, town_probes
from eval.paper import RESULTS, Record, append, read_records, rows_of
from eval.runs import data_folder

QUICK_STEPS = 5


def run_unit(trainer: Trainer, results: Path, probes: Probes, rows: list[Row] = ROWS) -> None:
    """Scores the rows that the results lack, then writes the report beside them."""
    unit = trainer.unit

    def keep(record: Record) -> None:
        append(record, results)
        side = bin(int(record.passed, 16)).count("1") / len(probes.test.probes)
        print(f"{unit.name}: {record.row} {100 * side:.1f}, {record.cpu_seconds:.0f} s", flush=True)

    done = rows_of(read_records(results), (unit.family, unit.paradigm, unit.seed))
    run(trainer, probes, done, keep, rows)
    report(results, probes)


def report(results: Path, probes: Probes) -> None:
    write_report(read_records(results), probes.test.probes, results.parent)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description="The paper's comparison on Town.")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and probes, kept apart, to see that everything runs"
    )
    parser.add_argument("--report", action="store_true", help="train and score nothing: only write the report again")
    options = parser.parse_args()
    settle()
    logging.disable_progress_bar()
    home = data_folder() / ("paper-quick" if options.quick else "paper")
    results = home / "results.jsonl" if options.quick else RESULTS
    probes, steps = town_probes(options.quick), QUICK_STEPS if options.quick else None
    for unit in [] if options.report else UNITS:
        began = time.process_time()
        run_unit(Trainer(unit, home, steps), results, probes)
        print(f"{unit.name}: whole, {(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)
    report(results, probes)


if __name__ == "__main__":
    main()
