"""The paper's comparison, repeated on Town: `python -m benchmarks.paper [--jobs 2] [--quick] [--report]`.

Trains what is missing, scores the rows that docs/paper.jsonl lacks, and writes docs/paper.md from it. It may be
stopped anywhere and goes on where it was, on another machine too: trained weights are made anew there.
"""

import argparse
from functools import partial

from benchmarks.paper.report import write_report
from benchmarks.paper.unit import settle, town_probes
from benchmarks.paper.units import each_done, run_unit
from eval.paper.records import RESULTS, mend, read_records
from eval.running.runtime import cores
from eval.scoring.runs import data_folder

QUICK_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description="The paper's comparison on Town.")
    parser.add_argument("--jobs", type=int, default=min(2, cores()), help="units at a time (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and probes, kept apart, to see that everything runs"
    )
    parser.add_argument("--report", action="store_true", help="train and score nothing: only write the report again")
    options = parser.parse_args()
    settle()
    home = data_folder() / ("paper-quick" if options.quick else "paper")
    results = home / "results.jsonl" if options.quick else RESULTS
    probes, steps = town_probes(options.quick), QUICK_STEPS if options.quick else None
    if not options.report:
        mend(results)
    work = partial(run_unit, home=home, results=results, probes=probes, steps=steps)
    for _ in [None] if options.report else each_done(work, options.jobs):
        write_report(read_records(results), probes.test.probes, results.parent)


if __name__ == "__main__":
    main()
