"""What our command lines share: how an error, a stop and a JSON line are told. Knows no command."""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from merging.errors import UserError


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError("E_USAGE", message, where=self.prog, do=f"Try: {self.prog} --help")


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
