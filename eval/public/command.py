"""`python -m eval benchmark`: its arguments, and what it prints."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from merging.command import add_device, print_json
from merging.events import to_json


def add_benchmark(commands: Any) -> None:
    words = "Run public benchmarks through lm-evaluation-harness (pip install -r requirements-benchmarks.txt)."
    more = (
        " Without --download nothing is fetched: data sets must lie in this machine's cache, or in files of your own."
    )
    bench = commands.add_parser("benchmark", help=words, description=words + more, allow_abbrev=False)
    bench.set_defaults(run=_benchmark)
    bench.add_argument("model", metavar="MODEL_OR_RECIPE", help="a model's folder, or a recipe (.yml)")
    words = "names with commas; also instructions, reasoning, code, honesty, harmlessness"
    bench.add_argument("--tasks", required=True, help=words)
    bench.add_argument("--samples", type=int, metavar="N", help="documents of each task, drawn once (default: all)")
    bench.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    bench.add_argument("--task-folder", type=Path, metavar="DIR", help="with tasks of your own; their code is run")
    bench.add_argument("--sources", action="store_true", help="and compare with the recipe's base and experts")
    bench.add_argument("--run-code", action="store_true", help="allow tasks that run code which the model writes")
    bench.add_argument("--download", action="store_true", help="let lm-eval fetch data sets that are not here")
    add_device(bench)
    bench.add_argument("--json", action="store_true", help="print one JSON object a line")


def _benchmark(args: argparse.Namespace) -> None:
    if not args.download:
        os.environ["HF_HUB_OFFLINE"] = "1"  # like the next, before the libraries read it once and for all
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    from eval.public.benchmarks import Against, Benchmarked, Running, benchmark, table

    scored: list[Benchmarked] = []
    compared: list[Against] = []
    for event in benchmark(
        args.model, args.tasks, args.samples, args.seed, args.device, args.sources, args.task_folder, args.run_code
    ):
        if args.json:
            print_json(to_json(event))
        elif isinstance(event, Running):
            print(f"{event.model}: {event.items} items …", file=sys.stderr)
        elif isinstance(event, Benchmarked):
            scored.append(event)
        else:
            compared.append(event)
    if not args.json:
        print(table(scored, compared))
