"""The command line: `python -m merging merge | verify | check | profile | fit | methods | download | push`.

Exit 0 done, 2 for what the user can mend (one plain message on stderr), 130 stopped. With --json, one object a line.
Torch is imported inside the commands, after what costs nothing to check, so that a wrong word is answered at once.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from merging.command import Parser, add_device, follow, print_json, run, seconds_text, write_recipe
from merging.errors import UserError, all_of
from merging.events import to_json
from merging.partial import refuse_file
from merging.recipe import Expert, load_recipe


def main(argv: Sequence[str] | None = None) -> int:
    stopped = "Stopped. A merge goes on from its finished shards with --resume; a download goes on by itself."
    return run(_parser(), argv, stopped)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m merging", description="Merge language models from a recipe.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, words: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
        found.set_defaults(run=run)
        found.add_argument("--json", action="store_true", help="print one JSON object a line")
        return found

    merge = command("merge", _merge, "Merge, and write the model to a new folder.")
    merge.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    merge.add_argument("out", type=Path, metavar="OUT/")
    add_device(merge)
    merge.add_argument("--resume", action="store_true", help="go on where a stopped merge of this recipe ended")
    merge.add_argument("--lora-rank", type=int, metavar="K", help="write a LoRA of this rank over the base instead")
    verify = command("verify", _verify, "Check every file of a finished merge against its sizes and sha256.")
    verify.add_argument("out", type=Path, metavar="OUT/")
    check = command("check", _check, "List every problem of a recipe, and what the merge would need.")
    check.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    profile = command("profile", _profile, "Show where the experts conflict, matrix by matrix.")
    profile.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    profile.add_argument("--html", type=Path, metavar="REPORT.html", help="write a page with the maps and the table")
    fit = command(
        "fit", _fit, "Find the scale with which a merge puts out as much as its experts do (needs `calibration:`)."
    )
    fit.add_argument("recipe", type=Path, metavar="RECIPE.yml")
    other = fit.add_mutually_exclusive_group()
    other.add_argument("--weights", action="store_true", help="find the experts' weights instead; the scale stays")
    other.add_argument("--densities", type=Path, metavar="OUT.yml",
                       help="write the recipe with a density for each layer (LEWIS) instead")  # fmt: skip
    command("methods", _methods, "List the merge methods and their settings.")
    download = command("download", _download, "Bring a Hub model to this machine; a stopped download goes on.")
    download.add_argument("source", metavar="ID[@REVISION]")
    push = command("push", _push, "Upload a finished merge to a new repository of the Hub; a private one.")
    push.add_argument("out", type=Path, metavar="OUT/")
    push.add_argument("repo", metavar="OWNER/NAME")
    push.add_argument("--public", action="store_true", help="let everyone see it")
    return parser


def _merge(args: argparse.Namespace) -> None:
    if args.lora_rank is not None and args.resume:
        raise UserError("E_USAGE", "a LoRA is written in one piece.", where="--resume", do="Leave --resume out.")
    recipe = load_recipe(args.recipe)
    from merging.device import choose_device, merges_on
    from merging.engine import merge
    from merging.hub import this_machine
    from merging.lora_export import write_lora
    from merging.pins import plan_downloaded

    device = merges_on(choose_device(args.device))
    plan = follow(plan_downloaded(recipe, this_machine(), args.out), args.json)
    if not args.json:
        print(_estimate_text(plan.estimate, len(plan.tensors)), file=sys.stderr)
    if args.lora_rank is not None:
        follow(write_lora(plan, args.out, args.lora_rank, device), args.json)
        return
    follow(merge(plan, args.out, device=device, resume=args.resume), args.json)
    if not args.json:
        print(f"To test that it loads and talks: python -m eval reload {args.out}")


def _verify(args: argparse.Namespace) -> None:
    from merging.manifest import verify

    found = verify(args.out)
    if args.json:
        print_json(to_json(found))
        return
    print(f"{found.folder}: {found.n_files} files, {found.n_bytes / 1e6:,.1f} MB, all as they were written.")
    print({"same": f"Its models give the same digest {found.digest}.",
           "other": "Models of these names are here, but they are not (or no longer) the ones that were merged.",
           "none": "Its models are not at hand, so the digest was not computed again."}[found.sources])  # fmt: skip


def _download(args: argparse.Namespace) -> None:
    from merging.download import download
    from merging.hub import this_machine

    follow(download(args.source, hub=this_machine()), args.json)


def _push(args: argparse.Namespace) -> None:
    from merging.hub import this_machine
    from merging.push import push

    if args.json or not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    follow(push(args.out, args.repo, hub=this_machine(), private=not args.public), args.json)


def _check(args: argparse.Namespace) -> None:
    recipe = load_recipe(args.recipe)
    from merging.check_report import as_json, fix_lines, lines, report
    from merging.hub import this_machine
    from merging.plan import check

    checked = check(recipe, this_machine())
    found = report(recipe, checked)
    if args.json:
        print_json(as_json(found))
    else:
        for line in (*lines(found), *(f"Note: {notice}" for notice in checked.notices), *fix_lines(found)):
            print(line)
    plan = checked.plan
    if plan is None:
        raise all_of(checked.problems, kept="Nothing was read but headers.")
    if not args.json:
        print(f"No problem found: {plan.method.title}, {len(plan.experts)} models.")
        print(_estimate_text(plan.estimate, len(plan.tensors)))


def _profile(args: argparse.Namespace) -> None:
    recipe = load_recipe(args.recipe)
    if args.html:
        refuse_file(args.html)
    import torch

    from merging.plan import make_plan
    from merging.profile import profile
    from merging.report import heading, html_report, text_rows

    torch.set_num_threads(1)  # small decompositions take several times longer on several threads
    plan = make_plan(recipe)
    names = [Expert(model.source).name for model in plan.experts]
    names = tuple(f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names, 1))
    if not args.json:
        print(heading(names))
    found = []
    for row in profile(plan, names):
        found.append(row)
        if args.json:
            print_json(to_json(row))
        else:
            print(*text_rows(row, names), sep="\n")
    if args.html:
        html_report(found, names, recipe.name or args.recipe.stem, args.html)
        if args.json:
            print_json({"event": "report_written", "file": str(args.html)})
        else:
            print(f"{args.html} written.")


def _fit(args: argparse.Namespace) -> None:
    recipe = load_recipe(args.recipe)
    if args.densities:
        refuse_file(args.densities)
    from merging.fit import fit, told
    from merging.live import LiveMerge
    from merging.plan import make_plan
    from merging.sources import spelled_out

    plan = make_plan(recipe)
    experts = [model for model in plan.experts if model.fingerprint != plan.base.fingerprint]
    live = LiveMerge(plan.base, experts, [expert.source for expert in experts])
    what = "densities" if args.densities else "weights" if args.weights else "scale"
    found = fit(what, recipe, lambda asked: live.outputs(list(map(make_plan, asked))))
    if args.densities:
        write_recipe(args.densities, spelled_out(found.recipe).to_yaml())
    if args.json:
        key = "lambda" if what == "scale" else what
        print_json({"event": "fitted", key: found.found, "kept": found.after, "kept_before": found.before,
                    "steps": found.steps})  # fmt: skip
    else:
        print(told(found))


def _methods(args: argparse.Namespace) -> None:
    from merging.methods import METHODS
    from merging.shapers import SHAPERS
    from merging.shaping import SHAPING

    for method in METHODS.values():
        if args.json:
            knobs = [vars(knob) for knob in method.knobs]
            print_json({"event": "method", "id": method.id, "title": method.title, "summary": method.summary,
                   "note": method.note, "paper": {**vars(method.paper), "url": method.paper.url},
                   "experts": method.experts, "uses_weight": method.uses_weight, "knobs": knobs})  # fmt: skip
            continue
        print(f"{method.id}: {method.title}. {method.summary}\n    {method.paper.title} ({method.paper.url})")
        _tell_knobs(method.knobs)
    if args.json:
        print_json({"event": "shared", "knobs": [vars(knob) for knob in SHAPING]})
        return
    print("With any method on deltas:")
    _tell_knobs(SHAPING[:2])
    for shaper in SHAPERS.values():
        print(f"  shaper {shaper.id}: {shaper.title}. {shaper.summary}\n    {shaper.paper.title} ({shaper.paper.url})")
        _tell_knobs(shaper.knobs)


def _tell_knobs(knobs: Iterable[Any]) -> None:
    for knob in knobs:
        span = f"{knob.low:g} to {knob.high:g}" if knob.kind == "number" else ", ".join(knob.choices) or knob.kind
        each = ", one per expert" if knob.per_expert else ""
        print(f"    {knob.key:22} {span}{each}; default {_plain(knob.default)}. {knob.help}")


def _estimate_text(estimate: Any, n_tensors: int) -> str:
    return (f"{estimate.n_parameters / 1e6:,.1f} million parameters in {n_tensors} tensors. Needs "
            f"{estimate.disk_bytes / 1e6:,.1f} MB of disk, {estimate.memory_bytes / 1e6:,.0f} MB of memory, and about "
            f"{seconds_text(estimate.seconds)} on one CPU core.")  # fmt: skip


def _plain(value: Any) -> str:
    return "none" if value == () else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
