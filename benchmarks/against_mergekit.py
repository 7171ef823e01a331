"""Our numbers against mergekit's, on the goldens' recipes, with float32 and with bfloat16 models.

    python -m benchmarks.against_mergekit PYTHON    (a Python that has mergekit 0.1.5 installed)

Prints a table and writes it to benchmarks/against_mergekit.md. Random methods are compared where they drop nothing.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.engine import merged_tensors
from merging.plan import make_plan
from merging.recipe import load_recipe

GOLDENS = Path(__file__).resolve().parents[1] / "tests" / "goldens" / "llama"
RESULTS = Path(__file__).with_suffix(".md")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# run -> dtype of the models, dtype of the merge
RUNS = {"float32": ("float32", "float32"), "bfloat16": ("bfloat16", "bfloat16"), "exact": ("bfloat16", "float32")}
OURS = ("tsv_m", "resm", "iso")  # goldens of methods that mergekit 0.1.5 does not have
MERGEKIT = """
import json, sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for recipe, out in json.load(sys.stdin):
    config = MergeConfiguration.model_validate(yaml.safe_load(open(recipe)))
    run_merge(config, out, MergeOptions(quiet=True, write_model_card=False))
"""


@dataclass(frozen=True)
class Row:
    case: str
    method: str
    float32: float  # largest |ours - mergekit|
    bfloat16: float
    same: float  # share of bfloat16 entries that are equal
    ours: float  # bfloat16's relative error of the merge's change against the float32 merge of the same models
    theirs: float


def main(python: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cases = _write(Path(folder))
        jobs = [(str(recipe), str(recipe.parent / "mergekit")) for runs in cases.values() for recipe in runs.values()]
        subprocess.run([python, "-c", MERGEKIT], input=json.dumps(jobs), text=True, check=True)
        rows = [_row(case, runs) for case, runs in cases.items()]
    _tell(rows)


def _write(folder: Path) -> dict[str, dict[str, Path]]:
    """Models and recipes: "float32", "bfloat16", and "exact": bfloat16 models merged and written in float32."""
    for name, dtype in DTYPES.items():
        for model in (GOLDENS / "models").iterdir():
            target = folder / "models" / name / model.name
            target.mkdir(parents=True)
            stored = load_file(model / "model.safetensors")
            save_file({k: v.to(dtype) for k, v in stored.items()}, target / "model.safetensors", {"format": "pt"})
            config = json.loads((model / "config.json").read_text()) | {"torch_dtype": name}
            (target / "config.json").write_text(json.dumps(config))
    cases = {}
    for path in sorted(GOLDENS.glob("*/recipe.yml")):
        text = path.read_text()
        if path.parent.name.startswith(OURS):
            continue
        cases[path.parent.name] = {}
        for run, (models, dtype) in RUNS.items():
            recipe = folder / path.parent.name / run / "recipe.yml"
            recipe.parent.mkdir(parents=True)
            absolute = text.replace("../models/", f"{folder}/models/{models}/")
            recipe.write_text(absolute.replace("dtype: float32", f"dtype: {dtype}"))
            cases[path.parent.name][run] = recipe
    return cases


def _row(case: str, runs: dict[str, Path]) -> Row:
    ours = {run: dict(merged_tensors(make_plan(load_recipe(recipe)))) for run, recipe in runs.items()}
    theirs = {run: load_file(recipe.parent / "mergekit" / "model.safetensors") for run, recipe in runs.items()}
    plan = make_plan(load_recipe(runs["bfloat16"]))
    names = [n for n in ours["float32"] if not case.startswith("breadcrumbs") or ours["float32"][n].numel() >= 100]

    def worst(run: str) -> float:
        return max(float((ours[run][n].float() - theirs[run][n].float()).abs().max()) for n in names)

    def before(name: str) -> Tensor:
        tensor = plan.tensor(name)
        if tensor.base_name:
            return plan.base.read(tensor.base_name).double()
        first = tensor.inputs[0]  # of a merge of models without a base
        return plan.experts[first.model].read(first.name).double()

    def change(run: dict[str, Tensor]) -> Tensor:
        return torch.cat([(run[n].double() - before(n)).flatten() for n in names])

    exact = change(ours["exact"])
    errors = [float((change(run["bfloat16"]) - exact).norm() / exact.norm()) for run in (ours, theirs)]
    equal = sum(int((ours["bfloat16"][n] == theirs["bfloat16"][n]).sum()) for n in names)
    total = sum(ours["bfloat16"][n].numel() for n in names)
    return Row(case, plan.method.id, worst("float32"), worst("bfloat16"), equal / total, *errors)


def _tell(rows: list[Row]) -> None:
    lines = [
        "# Our numbers against mergekit 0.1.5",
        "",
        "`python -m benchmarks.against_mergekit PYTHON`, torch " + torch.__version__ + ". Models: tests/goldens/llama.",
        "Largest difference of any weight. In bfloat16 mergekit computes in bfloat16, we in float32 and cast once",
        "at the end; last two columns: distance of each from the float32 merge of the same models.",
        "",
        "| case | method | float32 | bfloat16 | entries equal | our error | mergekit's error |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r.case} | `{r.method}` | {r.float32:.1e} | {r.bfloat16:.1e} | {r.same:.1%} | {r.ours:.2%} "
            f"| {r.theirs:.2%} |"
            for r in rows
        ),
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
