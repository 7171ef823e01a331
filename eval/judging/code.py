"""Code in an answer: found, parsed, and, only where the user asked for that, run.

The child process has no environment, no user site, a folder of its own and limits on time, memory and files. That stops
accidents and endless loops; it is no wall against code that means harm.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_SECONDS = 5
_HARNESS = """
import json, sys
try:
    import resource
    for what, most in ((resource.RLIMIT_CPU, 3), (resource.RLIMIT_AS, 512 << 20), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(what, (most, most))
except ImportError:  # not on this system; the clock outside still stops it
    pass
code, name, cases, sign = json.load(sys.stdin)
names = {"__name__": "answer"}
exec(compile(code, "answer", "exec"), names)
def same(a, b):
    if isinstance(a, tuple):
        a = list(a)
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and abs(a - b) <= 1e-9 * max(1, abs(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b
if all(same(names[name](*given), wanted) for given, wanted in cases):
    print(sign)
"""


def source(answer: str) -> str:
    """The first fenced block, else the answer from its first line of code on."""
    fenced = _FENCE.search(answer)
    if fenced:
        return fenced[1]
    start = re.search(r"^(?:def|import|from|class|@)\b", answer, re.MULTILINE)
    return answer[start.start() :] if start else answer


def defines(code: str, function: str) -> bool:
    """Whether it parses and defines the function with a body that does something."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return bool(found) and not all(_idle(statement) for statement in found[-1].body)


def runs_right(code: str, function: str, cases: Sequence[tuple[list[Any], Any]]) -> bool:
    """Runs it on every case in a process of its own; True where every result is as expected."""
    sign = token_hex(8)  # said at the end: code that ends the process early is not right
    with TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _HARNESS],
                input=json.dumps([code, function, cases, sign]),
                text=True,
                capture_output=True,
                timeout=_SECONDS,
                cwd=folder,
                env={},
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and done.stdout.endswith(f"{sign}\n")


def _idle(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
