"""What calibrating costs, as a multiple of the experts only reading the same texts.

    python -m benchmarks.calibration [--size mid] [--each 256] [--folder FOLDER]

Writes benchmarks/calibration.md: CPU on one core without opening the models, and the peak of anonymous memory. The
family is synthetic (mid: 0.44 B parameters) with Town's tokenizer. Each of three experts answers prompts of its own in
48 tokens; since its random words are no text, what is read are those prompts with answers of that length by others.
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

import yaml

from assets.town.mixes import text
from benchmarks.bench import ROOT
from benchmarks.family import EXPERTS, SIZES, make_speaking
from benchmarks.measured import Cost, run

RESULTS = Path(__file__).with_suffix(".md")
TOLD = 8  # stories an answer is cut from
ANSWER = 180  # characters, about 48 of Town's tokens
PROMPTS = ROOT / "assets" / "calibration" / "town.jsonl"
METHODS = ("regmean", "regmean_pp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--each", type=int, default=256, help="texts an expert")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where family and measurements lie")
    args = parser.parse_args()
    home = make_speaking(args.size, args.folder)
    texts = args.folder / "texts.jsonl"
    texts.write_text("".join(json.dumps(line) + "\n" for line in _texts(args.each)))
    lines = _table(args.folder, home, texts, args.each)
    print("\n".join(lines))
    RESULTS.write_text("\n".join(["# What calibrating costs", "", *lines, ""]))


def _texts(each: int) -> list[dict[str, object]]:
    rng = random.Random("texts")
    asked = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    found: list[dict[str, object]] = []
    for expert, kind in zip(EXPERTS, dict.fromkeys(line["expert"] for line in asked), strict=True):
        prompts = [line["messages"] for line in asked if line["expert"] == kind]
        for prompt in prompts[:each]:
            answer = " ".join(text(rng).answer for _ in range(TOLD))[:ANSWER]
            found.append({"expert": expert, "messages": [*prompt, {"role": "assistant", "content": answer}]})
    return found


def _table(folder: Path, home: Path, texts: Path, each: int) -> list[str]:
    recipe = _recipe(folder, home, METHODS[0])
    read, answered = (_run(recipe, texts, each, how) for how in ("read", "answer"))
    rows = [f"| only reading | 1 | {read.anonymous >> 20} | |"]
    rows += [f"| only answering | {answered.cpu / read.cpu:.2f} | {answered.anonymous >> 20} | |"]
    for method in METHODS:
        out = folder / f"calibration of {method}"
        shutil.rmtree(out, ignore_errors=True)
        cost = _run(_recipe(folder, home, method), texts, each, str(out))
        rows.append(f"| `{method}` | {cost.cpu / read.cpu:.2f} | {cost.anonymous >> 20} | {cost.said['bytes'] >> 20} |")
    tokens = " / ".join(f"{n:,}" for n in read.said["tokens"])
    return [
        f"`python -m benchmarks.calibration --size {home.name} --each {each}`: {each} texts for each of "
        f"{len(EXPERTS)} experts, {tokens} tokens;",
        f"reading them takes {read.cpu:.0f} s of CPU, answering their prompts in 48 tokens {answered.cpu:.0f} s. "
        "Anonymous memory above imports.",
        "Head and embedding are two tensors here; where they are one, as much is read.",
        "",
        "| | CPU, times reading | MB in memory | MB kept |",
        "|---|---|---|---|",
        *rows,
    ]


def _run(recipe: str, texts: Path, each: int, how: str) -> Cost:
    return run([sys.executable, "-m", "benchmarks.runners.reading", recipe, str(texts), str(each), how], ROOT)


def _recipe(folder: Path, home: Path, method: str) -> str:
    path = folder / f"{method}.yml"
    models = [{"model": str(home / name)} for name in EXPERTS]
    path.write_text(yaml.safe_dump({"merge_method": method, "base_model": str(home / "base"), "models": models}))
    return str(path)


if __name__ == "__main__":
    main()
