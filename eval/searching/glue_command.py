"""`python -m eval glue`: its arguments, and what it says."""

import argparse
import sys
from pathlib import Path
from typing import Any

from merging.command import add_device, print_json, write_recipe
from merging.events import to_json
from merging.partial import refuse_file


def add_glue(commands: Any) -> None:
    words = "Write the recipe of a merge of many experts: alike ones averaged first, the averages then merged."
    more = (
        " Experts whose deltas point the same way are a cluster; inside it the best by score is averaged with each "
        "that does not make the average worse. RECIPE's own method then merges the clusters, or another (--across)."
    )
    glue = commands.add_parser("glue", help=words, description=words + more, allow_abbrev=False)
    glue.set_defaults(run=_glue)
    glue.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    glue.add_argument("out", type=Path, metavar="GLUED.yml")
    glue.add_argument("--cosine", type=float, default=0.3, help="least mean cosine inside a cluster (default: 0.3)")
    words = "merge the clusters by this method at its defaults, such as output_fit (default: RECIPE's own)"
    glue.add_argument("--across", default="", metavar="METHOD", help=words)
    glue.add_argument("--probes", default="town", help="town, or standard for real models (default: town)")
    glue.add_argument("--all", action="store_true", help="average whole clusters, and ask no model")
    add_device(glue)
    glue.add_argument("--json", action="store_true", help="print one JSON object a line")


def _glue(args: argparse.Namespace) -> None:
    refuse_file(args.out)
    from eval.scoring.score import Asked
    from eval.searching.glue import Glued, Grouped, Joined, glue

    for event in glue(args.recipe, args.cosine, "" if args.all else args.probes, args.device, args.across):
        if isinstance(event, Glued):
            write_recipe(args.out, event.recipe)
        if args.json:
            print_json(to_json(event))
        elif isinstance(event, Grouped):
            print("Cosines: " + ", ".join(f"{a} and {b} {cosine:.2f}" for a, b, cosine in event.cosines))
            print("Clusters: " + " | ".join(", ".join(names) for names in event.clusters), flush=True)
        elif isinstance(event, Joined):
            verdict = "joins" if event.kept else "is left out"
            print(f"{event.expert} {verdict}: mean {100 * event.before:.1f} to {100 * event.after:.1f}", flush=True)
        elif isinstance(event, Glued):
            print(f"The merge is written to {args.out}.")
            if event.to_measure:
                print(f"It merges by what its clusters read: python -m eval calibrate {args.out} FOLDER")
        elif isinstance(event, Asked) and sys.stderr.isatty():
            end = "\r\033[K" if event.done == event.total else ""
            print(f"\r\033[K{event.done} of {event.total} probes{end}", end="", file=sys.stderr, flush=True)
