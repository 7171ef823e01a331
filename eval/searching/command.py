"""`python -m eval search`: its arguments, and what it says while it runs and at the end."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.searching.aims import AIMS
from eval.searching.samplers import SAMPLERS
from merging.command import add_device, print_json, seconds_text, write_recipe
from merging.events import to_json
from merging.partial import refuse_file

if TYPE_CHECKING:
    from eval.scoring.board import Scores
    from eval.searching.events import Finalist, Tried


def add_search(commands: Any) -> None:
    words = "Look for a recipe's best weights and numbers, and write the best as a recipe."
    more = (
        " Many tries on few probes, the best of them on more, the last two on probes that nothing was chosen by. A "
        "search that was stopped goes on where it was when it is started again: no probe is asked twice."
    )
    search = commands.add_parser("search", help=words, description=words + more, allow_abbrev=False)
    search.set_defaults(run=_search)
    search.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    search.add_argument("out", type=Path, metavar="BEST.yml", help="where the best recipe is written, at the end")
    search.add_argument("--trials", type=int, help="how many tries (default: 24, or as many as --minutes has room for)")
    search.add_argument("--minutes", type=float, help="about how long this run may take")
    samplers = "; ".join(f"{name}: {words}" for name, words in SAMPLERS.items())
    search.add_argument("--sampler", choices=tuple(SAMPLERS), default="tpe", help=f"{samplers} (default: tpe)")
    aims = "; ".join(f"{name}: {words}" for name, words in AIMS.items())
    search.add_argument("--aim", choices=tuple(AIMS), default="both", help=f"{aims} (default: both)")
    search.add_argument("--probes", default="town", help="town, or standard for real models (default: town)")
    search.add_argument("--seed", type=int, default=0)
    add_device(search)
    search.add_argument("--json", action="store_true", help="print one JSON object a line")


def _search(args: argparse.Namespace) -> None:
    refuse_file(args.out)
    from eval.scoring.score import Asked
    from eval.searching.events import Begun, Done, Finalist, Promoted, Tried
    from eval.searching.scoring import search_recipe

    finalists: list[Finalist] = []
    done: Done | None = None
    for event in search_recipe(
        args.recipe, args.probes, args.sampler, args.trials, args.minutes, args.seed, args.device, args.aim
    ):
        if args.json:
            print_json(to_json(event))
        elif isinstance(event, Tried):
            print(_line(event), flush=True)
        elif isinstance(event, Promoted):
            print(f"To {event.rung}: tries {', '.join(map(str, event.numbers))}.", flush=True)
        elif isinstance(event, Asked) and sys.stderr.isatty():
            end = "\r\033[K" if event.done == event.total else ""
            print(f"\r\033[K{event.done} of {event.total} probes{end}", end="", file=sys.stderr, flush=True)
        elif isinstance(event, Begun):
            print(f"Turned: {', '.join(event.dials)}.")
        if isinstance(event, Finalist):
            finalists.append(event)
        if isinstance(event, Done):
            done = event
    assert done is not None
    write_recipe(args.out, done.recipe)
    if not args.json:
        print(_table(finalists), done.words(), f"Try {done.best} is written to {args.out}.", sep="\n")


def _line(event: "Tried") -> str:
    left = "" if event.seconds_left is None else f"  about {seconds_text(event.seconds_left)} left"
    point = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                      for name, value in event.point.items())  # fmt: skip
    found = _shares(event.scores) if event.scores else f"no merge: {event.problem}"
    return f"{event.number:4} {event.rung:6} {found}  {point}{left}"


def _shares(scores: "Scores") -> str:
    return f"mean {100 * scores.mean:5.1f}  worst {100 * scores.min:5.1f}  broken {100 * scores.broken:4.1f}"


def _table(finalists: "Sequence[Finalist]") -> str:
    lines = ["Finalists, on the probes they were chosen by and on unseen ones, in percent:"]
    for one in finalists:
        gap = one.against
        told = "the recipe it began with" if gap is None else (
            f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] against the recipe it began with"
            + ("" if gap.low > 0 or gap.high < 0 else ": cannot tell")
        )  # fmt: skip
        lines.append(f"{one.number:4}  seen: {_shares(one.seen)}  unseen: {_shares(one.unseen)}  {told}")
    return "\n".join(lines)
