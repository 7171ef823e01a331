"""What our command lines share: how an error, a stop and a JSON line are told. Knows no command."""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from merging.device import DEVICES
from merging.errors import UserError
from merging.events import (
    Downloaded,
    Downloading,
    DownloadStarted,
    Event,
    Finished,
    LoraLoss,
    Notice,
    Pushed,
    Reloaded,
    ShardWritten,
    Started,
    TensorDone,
    Testing,
    Uploading,
    to_json,
)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError("E_USAGE", message, where=self.prog, do=f"Try: {self.prog} --help")


def add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", choices=DEVICES, default="auto", help="auto: a GPU where there is one")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None, stopped: str) -> int:
    """Run the chosen command's `run(args)`; the exit code. `stopped` is what Ctrl-C is answered with."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = parser.parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except UserError as error:
        if "--json" in argv:
            parts = {"problems": [part.to_dict() for part in error.parts]} if error.parts else {}
            print_json({"event": "error", **error.to_dict(), **parts})
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def tell(event: Event) -> None:
    """An event of long work in words; progress on a terminal only."""
    terminal = sys.stderr.isatty()
    if isinstance(event, TensorDone) and terminal:
        left = "" if event.seconds_left is None else f"  about {seconds_text(event.seconds_left)} left"
        print(f"\r\033[K{event.done} of {event.total} tensors{left}", end="", file=sys.stderr, flush=True)
    elif isinstance(event, Downloading | Uploading) and terminal:
        left = "" if event.seconds_left is None else f"  about {seconds_text(event.seconds_left)} left"
        print(f"\r\033[K{event.file}: {event.done / 1e6:,.1f} of {event.total / 1e6:,.1f} MB{left}", end="",
              file=sys.stderr, flush=True)  # fmt: skip
    elif isinstance(event, Started | TensorDone | Downloading | Uploading):
        return
    else:
        if terminal:
            print("\r\033[K", end="", file=sys.stderr)
        if isinstance(event, Notice):
            print(f"Note: {event.text}", file=sys.stderr)
        elif isinstance(event, ShardWritten):
            print(f"{event.file} written, {event.n_bytes / 1e6:,.1f} MB.", file=sys.stderr)
        elif isinstance(event, Testing):
            print("Testing: the merge is loaded again and compared …", file=sys.stderr)
        elif isinstance(event, Reloaded):
            print(*event.words(), sep="\n", file=sys.stderr)
        elif isinstance(event, LoraLoss):
            print(*event.words(), sep="\n")
        elif isinstance(event, DownloadStarted):
            kept = f", {event.n_kept / 1e6:,.1f} MB of them here already" if event.n_kept >= 1e5 else ""
            print(f"{event.source}: {event.n_files} files, {event.n_bytes / 1e6:,.1f} MB{kept}.", file=sys.stderr)
        elif isinstance(event, Downloaded):
            took = seconds_text(event.seconds)
            print(f"{event.source} is here at commit {event.commit}, {event.n_bytes / 1e6:,.1f} MB in {took}.",
                  file=sys.stderr)  # fmt: skip
        elif isinstance(event, Pushed):
            kind = "private" if event.private else "public"
            print(f"{event.n_files} files are at {event.url}, {kind}, commit {event.commit}.")
        elif isinstance(event, Finished):
            took = seconds_text(event.seconds)
            print(f"{event.folder} written: {event.n_tensors} tensors in {took}. Digest {event.digest}.")


def follow(events: Iterator[Event], as_json: bool) -> Any:
    """Tell every event; returns what their generator does at its end."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if as_json:
            print_json(to_json(event))
        else:
            tell(event)


def write_recipe(out: Path, recipe: str) -> None:
    """Whole or not at all."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_text(recipe, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise UserError("E_WRITE", f"the recipe cannot be written: {error.strerror}.", where=str(out),
                        kept="What was measured is.", do="Choose another place.") from error  # fmt: skip


def seconds_text(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_json(value: dict[str, Any]) -> None:
    """One line, sent at once."""
    print(json.dumps(_json_ready(value), ensure_ascii=False, allow_nan=False), flush=True)


def _json_ready(value: Any) -> Any:
    """NaN and infinity have no JSON form and become null."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
