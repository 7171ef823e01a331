"""Arrows between the packages, and files small enough to read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for folder in ("merging", "eval", "ui") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN = {
    "merging": {"eval", "ui", "gradio", "plotly", "transformers", "peft"},
    "eval": {"ui", "gradio", "peft"},
    "ui": {"app", "transformers", "peft"},
}
EVAL = ("judging", "running", "calibrating", "scoring", "searching", "public", "paper")  # a later one knows the earlier


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_and_size(path: Path):
    found = imports(path)
    package = path.relative_to(ROOT).parts[0]
    assert not {name.split(".")[0] for name in found} & FORBIDDEN[package]
    assert "eval" not in found, "write `from eval.x import y`: eval is a builtin too"
    if path.parent.name in EVAL:
        later = EVAL[EVAL.index(path.parent.name) + 1 :]
        assert not {name for name in found if name.startswith("eval.") and name.split(".")[1] in later}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("merging.plots", ("gradio", "plotly", "torch")),
        ("merging.plan, merging.plots", ("gradio", "plotly", "transformers", "peft")),
        ("app, ui.jobs, eval.worker, eval.running.chat", ("gradio", "torch", "transformers")),
        ("eval.answering", ("accelerate", "transformers")),  # the first picture waits for it
        ("eval.answering, eval.running.models, eval.scoring.score", ("gradio", "plotly", "peft")),
    ],
)
def test_what_an_import_loads(modules: str, absent: tuple[str, ...]):
    code = f"import sys, {modules}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
