"""`python -m eval safest`: its arguments, and what it says."""

import argparse
from pathlib import Path
from typing import Any

from merging.command import add_device, print_json, write_recipe
from merging.events import to_json
from merging.partial import refuse_file
from merging.recipe import load_recipe


def add_safest(commands: Any) -> None:
    words = (
        "Look for the weights whose merge finds the experts' own answers and the safest expert's refusals likeliest."
    )
    more = " By cross-entropy on the answers that a calibration keeps: nothing is generated, no probe is asked."
    command = commands.add_parser("safest", help=words, description=words + more, allow_abbrev=False)
    command.set_defaults(run=_safest)
    command.add_argument("recipe", type=Path, metavar="RECIPE.yml", help="one whose `calibration:` has texts")
    command.add_argument("out", type=Path, metavar="BEST.yml", help="where the best recipe is written, at the end")
    command.add_argument(
        "--safe", default="", metavar="EXPERT", help="the safest expert's name (default: who refuses most)"
    )
    command.add_argument("--g", type=float, default=1.0, help="how much its refusals count (default: 1)")
    command.add_argument("--trials", type=int, default=24, help="how many tries (default: 24)")
    command.add_argument("--seed", type=int, default=0)
    add_device(command)
    command.add_argument("--json", action="store_true", help="print one JSON object a line")


def _safest(args: argparse.Namespace) -> None:
    names = [expert.name for expert in load_recipe(args.recipe).beside_base]
    refuse_file(args.out)
    from eval.searching.safety import Safest, Trusted, safest, told

    for event in safest(args.recipe, args.safe, args.g, args.trials, seed=args.seed, device=args.device):
        if isinstance(event, Safest):
            write_recipe(args.out, event.recipe)
        if args.json:
            print_json(to_json(event))
        elif isinstance(event, Safest):
            print(event.words(), f"It is written to {args.out}.", sep="\n")
        elif isinstance(event, Trusted):
            print(event.words(), flush=True)
        else:
            print(told(event, names), flush=True)
