"""The command line: `python -m eval COMMAND`; `--help` lists the commands.

Exit 0 done, 2 for what the user can mend (one plain message on stderr), 130 stopped. With --json, one object a line;
the last one is the scores alone.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.public.command import add_benchmark
from eval.searching.command import add_search
from eval.searching.glue_command import add_glue
from eval.searching.safety_command import add_safest
from merging.command import Parser, add_device, follow, print_json, run, tell
from merging.events import Notice, to_json
from merging.partial import refuse_existing
from merging.recipe import load_recipe

if TYPE_CHECKING:
    from eval.scoring.board import HScore, Scores
    from eval.scoring.score import Asked


def main(argv: Sequence[str] | None = None) -> int:
    return run(
        _parser(),
        argv,
        "Stopped. What is finished is kept: score and search go on by themselves, export with --resume.",
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m eval", description="Score and test language models.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    words = "Ask a model, or the merge of a recipe, a set of probes and print its scores."
    score = commands.add_parser("score", help=words, description=words, allow_abbrev=False)
    score.set_defaults(run=_score)
    score.add_argument("model", metavar="MODEL_OR_RECIPE", help="a model's folder, or a recipe (.yml)")
    score.add_argument("--sources", action="store_true", help="score the recipe's base and experts as well")
    words = "with --sources: also score whole answers of one expert each, chosen by prompts from FILE (default: town)"
    score.add_argument("--router", nargs="?", const="town", default="", metavar="FILE", help=words)
    words = "also score SMILE's mixture of the recipe's experts at this rank, and say what it costs (default: 64)"
    score.add_argument("--mixture", nargs="?", const=64, type=int, metavar="RANK", help=words)
    words = "run the code that the model writes for code probes, in a process with limits"
    score.add_argument("--run-code", action="store_true", help=words)

    words = "Let another language model say whose answers are better, A's or B's."
    leaves = (
        " Each probe and both answers are sent to that address, each pair in both orders; only verdicts that agree "
        "count. The key is read from MERGESCOPE_JUDGE_KEY. Replies are kept, so nothing is asked twice."
    )
    judge = commands.add_parser("judge", help=words, description=words + leaves, allow_abbrev=False)
    judge.set_defaults(run=_judge)
    judge.add_argument("a", metavar="A", help="a model's folder, or a recipe (.yml)")
    judge.add_argument("b", metavar="B", help="what A is held against")
    judge.add_argument("--endpoint", required=True, metavar="URL", help="OpenAI-compatible, such as https://HOST/v1")
    judge.add_argument("--model", required=True, metavar="NAME", help="the judge, as the endpoint names it")
    judge.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="without a sign (default: 60)")
    judge.add_argument("--retries", type=int, default=3, metavar="N", help="of one question (default: 3)")

    for command in (score, judge):
        command.add_argument("--probes", default="town", help="town, quick, standard or sealed (default: town)")
        command.add_argument("--split", choices=("screen", "validation", "test"), default="test", help="of town")

    add_search(commands)
    add_glue(commands)
    add_safest(commands)
    add_benchmark(commands)
    cost = (
        " It holds one model in memory at a time, as large as its files, and computes the merge a second time (above a "
        "billion parameters, a sample of its tensors)."
    )
    words = "Merge, and test the model before it gets its name: it loads, is the merge, and ends an answer."
    export = commands.add_parser("export", help=words, description=words + cost, allow_abbrev=False)
    export.set_defaults(run=_export)
    export.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    export.add_argument("out", type=Path, metavar="OUT/")
    export.add_argument("--resume", action="store_true", help="go on where a stopped export of this recipe ended")
    words = "Test a finished merge, against its recipe where its sources are at hand."
    again = commands.add_parser("reload", help=words, description=words + cost, allow_abbrev=False)
    again.set_defaults(run=_reload)
    again.add_argument("out", type=Path, metavar="OUT/")
    words = "Measure what the experts' matrices read on their own texts, for the methods that merge by it."
    measure = commands.add_parser("calibrate", help=words, description=words, allow_abbrev=False)
    measure.set_defaults(run=_calibrate)
    measure.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    words = "default: the recipe's own `calibration:`, else RECIPE-calibration beside it"
    measure.add_argument("out", type=Path, nargs="?", metavar="FOLDER", help=words)
    measure.add_argument("--texts", default="town", help="a file of texts for each expert, or: town")
    measure.add_argument("--each", type=int, default=64, help="texts an expert (default: 64)")
    words = "keep this share of the texts: of usual length, little repeated, neither odd nor trivial to the base"
    measure.add_argument("--pick", type=float, default=1.0, metavar="SHARE", help=words)
    words = "measure what the base's matrices read too, for LEWIS densities and AIM (whose recipe does so anyway)"
    measure.add_argument("--base", action="store_true", help=words)
    words = "Show how often the refusal detector errs, on answers labelled by hand."
    detector = commands.add_parser("detector", help=words, description=words, allow_abbrev=False)
    detector.set_defaults(run=_detector)
    for command in (score, judge, export, again, measure):
        add_device(command)
        command.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _export(args: argparse.Namespace) -> None:
    recipe = load_recipe(args.recipe)
    from merging.hub import this_machine
    from merging.pins import plan_downloaded

    plan = follow(plan_downloaded(recipe, this_machine(), args.out), args.json)
    from eval.scoring.reload import export  # transformers: seconds, which a plan with problems need not wait for

    follow(export(plan, args.out, args.device, args.resume), args.json)


def _reload(args: argparse.Namespace) -> None:
    from eval.scoring.reload import reload

    follow(reload(args.out, args.device), args.json)


def _calibrate(args: argparse.Namespace) -> None:
    recipe = load_recipe(args.recipe)
    out = args.out or recipe.folder / (recipe.calibration or f"{args.recipe.stem}-calibration")
    refuse_existing(out)
    from merging.plan import members

    members(recipe)  # whether they open: not after seconds of importing transformers
    from eval.calibrating.calibrate import Calibrated, calibrate

    for event in calibrate(recipe, out, args.texts, args.each, args.device, args.pick, args.base):
        if args.json:
            print_json(to_json(event))
        elif isinstance(event, Calibrated):
            print(f"{event.folder}: {event.n_bytes / 1e6:,.1f} MB from {sum(event.tokens):,} tokens")
        elif sys.stderr.isatty():
            left = f", about {event.seconds_left:.0f} s left" if event.seconds_left else ""
            print(f"\r\033[K{event.step}: {event.done} of {event.total}{left}", end="", file=sys.stderr, flush=True)


def _detector(args: argparse.Namespace) -> None:
    from eval.judging.detector import report

    print(report())


def _score(args: argparse.Namespace) -> None:
    from eval.judging.probes import SELECTION
    from eval.running.chat import Mixing
    from eval.scoring.score import Scored, score

    scored: dict[str, Scores] = {}
    mixing = None if args.mixture is None else Mixing(rank=args.mixture)
    events = score(args.model, args.probes, args.split, args.device, args.sources, args.run_code, args.router, mixing)
    for event in events:
        if isinstance(event, Scored):
            scored[event.model] = event.scores
        if args.json:
            print_json(to_json(event))
        elif isinstance(event, Notice):
            tell(event)
        elif not isinstance(event, Scored):
            _tell(event)
    first = next(iter(scored.values()))
    if args.json:
        print_json(first.to_json())
    else:
        print(_table(scored))
    if args.probes == "sealed":
        print(SELECTION, file=sys.stderr if args.json else sys.stdout)


def _judge(args: argparse.Namespace) -> None:
    from eval.judging.endpoint import KEY, Endpoint
    from eval.scoring.pairwise import Judged, Judging, judge_runs, table

    endpoint = Endpoint(args.endpoint, args.model, os.environ.get(KEY), args.timeout, args.retries)
    for event in judge_runs(args.a, args.b, endpoint, args.probes, args.split, args.device):
        if args.json:
            print_json(to_json(event))
        elif isinstance(event, Judged):
            print(table(event))
        elif isinstance(event, Judging):
            _progress(f"{event.done} of {event.total} questions to the judge", event.done == event.total)
        elif isinstance(event, Notice):
            tell(event)
        else:
            _tell(event)


def _tell(event: "Asked") -> None:
    left = f", about {event.seconds_left:.0f} s left" if event.seconds_left else ""
    _progress(f"{event.model}: {event.done} of {event.total} probes{left}", event.done == event.total)


def _progress(words: str, done: bool) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="\r\033[K" if done else "", file=sys.stderr, flush=True)


def _table(scored: "dict[str, Scores]") -> str:
    width = max(len("model"), *map(len, scored))
    head = ("helpful", "honest", "harmless", "mean", "worst", "broken")
    lines = [
        f"{'model':{width}}  " + "".join(f"{word:17}" for word in head[:3]) + "  ".join(f"{w:>6}" for w in head[3:])
    ]
    for name, scores in scored.items():
        sides = "".join(f"{_side(side):17}" for side in (scores.helpful, scores.honest, scores.harmless))
        rest = "  ".join(f"{100 * share:6.1f}" for share in (scores.mean, scores.min, scores.broken))
        lines.append(f"{name:{width}}  {sides}{rest}")
    n = next(iter(scored.values()))
    lines.append(
        f"Percent, with 95 % intervals; {n.helpful.n}, {n.honest.n} and {n.harmless.n} probes. "
        "Differences inside the intervals may be chance."
    )
    return "\n".join(lines)


def _side(side: "HScore") -> str:
    return f"{100 * side.score:.1f} ({100 * side.low:.0f}-{100 * side.high:.0f})"


if __name__ == "__main__":
    sys.exit(main())
