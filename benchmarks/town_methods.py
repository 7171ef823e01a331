"""Merge methods on Town: default knobs, and knobs tuned on validation probes, both scored on test probes.

Those that take all three experts (SLERP two of them) and that nothing has to be measured for.

    python -m benchmarks.town_methods [--quick]

Writes benchmarks/town_methods.md. Answers are kept in the data folder, so a stopped run goes on where it was.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from eval.judging.probes import Split, load_probes
from eval.scoring.score import Scored, score
from eval.scoring.stats import paired_difference
from merging.methods import METHODS
from merging.recipe import Expert, Recipe, load_recipe
from merging.values import Setting, Settings

ROOT = Path(__file__).resolve().parents[1]
TOWN = ROOT / "assets" / "town"
NAMES = ("helpful", "honest", "harmless")
RESULTS = Path(__file__).with_suffix(".md")
LAYER_MODE = {"outlier_mode": "layer_emphasise", "outlier_threshold": 1.0, "rank_mode": "uniform"}
WEIGHTS = [(1.0, 1.0, 1.0), (1.2, 0.9, 0.9), (0.5, 1.5, 1.0), (1.0, 1.5, 1.5)]


@dataclass(frozen=True)
class Try:
    """One recipe: a method, its knobs and the experts' weights."""

    method: str
    knobs: Settings = ()
    weights: tuple[float, ...] = WEIGHTS[0]

    def recipe(self) -> Recipe:
        method = METHODS[self.method]
        knobs: dict[str, Setting] = {knob.key: knob.screen for knob in method.knobs} | dict(self.knobs)
        own = [{k.key: knobs[k.key] for k in method.knobs if k.per_expert} for _ in NAMES]
        if method.uses_weight:
            own = [{"weight": weight, **settings} for weight, settings in zip(self.weights, own, strict=True)]
        experts = [Expert(str(TOWN / name), tuple(settings.items())) for name, settings in zip(NAMES, own, strict=True)]
        shared = tuple((k.key, knobs[k.key]) for k in method.knobs if not k.per_expert)
        base = str(TOWN / "base")
        if self.method == "slerp":  # two of the three: the pair stands in the weights
            experts = [expert for expert, weight in zip(experts, self.weights, strict=True) if weight]
            base = experts[0].model
        return Recipe(self.method, base, tuple(experts), shared)

    def __str__(self) -> str:
        words = [f"{key} {value if not isinstance(value, float) else f'{value:g}'}" for key, value in self.knobs]
        if self.method == "slerp":
            words.append(" and ".join(name for name, weight in zip(NAMES, self.weights, strict=True) if weight))
        elif self.weights != WEIGHTS[0]:
            words.append("weights " + " / ".join(f"{weight:g}" for weight in self.weights))
        return ", ".join(words) or "as the page proposes"


def defaults() -> list[Try]:
    taken = [m.id for m in METHODS.values() if m.experts[0] <= len(NAMES) <= m.experts[1] and not m.calibrated]
    return [Try("slerp", weights=(1, 1, 0)), *map(Try, taken)]


def grid(method: str) -> Iterator[Try]:
    """What is tried for one method beside its default; scale is always among it."""

    def over(**values: list) -> Iterator[Try]:
        for combination in itertools.product(*values.values()):
            yield Try(method, tuple(zip(values, combination, strict=True)))

    if method == "linear":
        yield from (Try(method, weights=weights) for weights in WEIGHTS)
    elif method == "slerp":
        for t, pair in itertools.product((0.25, 0.5, 0.75), ((1, 1, 0), (1, 0, 1), (0, 1, 1))):
            yield Try(method, (("t", t),), pair)
    elif method == "task_arithmetic":
        yield from over(**{"lambda": [0.3, 0.4, 0.5, 0.6, 0.7]})
        yield from (replace(t, weights=WEIGHTS[2]) for t in over(**{"lambda": [0.3, 0.4, 0.5, 0.6]}))
    elif method == "ties":
        yield from over(density=[0.2, 0.5, 0.8], **{"lambda": [0.6, 0.8, 1.0, 1.3]})
    elif method in ("dare_linear", "dare_ties"):
        yield from over(density=[0.5, 0.8], **{"lambda": [0.3, 0.4, 0.5, 0.6, 0.8]})
    elif method == "tsv_m":
        yield from over(**{"lambda": [0.8, 1.0, 1.15, 1.3, 1.5]})
        yield from (replace(t, weights=WEIGHTS[1]) for t in over(**{"lambda": [1.15, 1.3]}))
    elif method == "resm":
        yield from over(**{"lambda": [1.0, 1.15, 1.3, 1.5]})
        for t in over(outlier_strength=[0.05, 0.1, 0.15], rank_budget=[0.6, 0.7, 1.0], **{"lambda": [1.1, 1.2, 1.3]}):
            yield replace(t, knobs=(*LAYER_MODE.items(), *t.knobs))
            yield replace(t, knobs=(*(LAYER_MODE | {"rank_mode": "sparsity"}).items(), *t.knobs))
        for t in over(outlier_strength=[0.1, 0.15], rank_budget=[0.6], **{"lambda": [1.0, 1.15]}):
            yield replace(t, knobs=(*(LAYER_MODE | {"rank_mode": "outlier_share"}).items(), *t.knobs))


def measure(recipe: Recipe | str, split: Split) -> Scored:
    """Scores of a recipe, or of a model folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "try.yml"
        if isinstance(recipe, Recipe):
            path.write_text(recipe.to_yaml(), encoding="utf-8")
        found = list(score(str(path) if isinstance(recipe, Recipe) else recipe, split=split))
    return next(event for event in reversed(found) if isinstance(event, Scored))


def row(name: str, setting: str, found: Scored, against: Scored | None) -> str:
    s = found.scores
    sides = " / ".join(f"{100 * side.score:.0f}" for side in (s.helpful, s.honest, s.harmless))
    gap = ""
    if against is not None and against is not found:
        probes = {probe.id: probe for probe in load_probes("town", "test").probes}
        a, b = ([answer.verdict.passed for answer in one.answers] for one in (found, against))
        d = paired_difference(a, b, [probes[answer.probe_id].cluster for answer in found.answers])
        verdict = "" if d.low > 0 or d.high < 0 else " (cannot tell)"
        gap = f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]{verdict}"
    return f"| {name} | {setting} | {sides} | {100 * s.mean:.1f} | {100 * s.min:.0f} | {100 * s.broken:.1f} | {gap} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="defaults only, no tuning")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)  # batches this small are faster on one
    lines = ["| model or method | setting | helpful / honest / harmless | mean | min | broken % | mean against TSV-M |"]
    lines += ["|---|---|---|---|---|---|---|"]
    reference = measure(Try("tsv_m").recipe(), "test")
    for name in ("base", *NAMES):
        lines.append(row(name, "", measure(str(TOWN / name), "test"), reference))
    for attempt in defaults():
        lines.append(
            row(METHODS[attempt.method].title, f"default: {attempt}", measure(attempt.recipe(), "test"), reference)
        )
        if quick:
            continue
        tries = [attempt, *grid(attempt.method)]
        validated = []
        for candidate in tries:
            found = measure(candidate.recipe(), "validation").scores
            validated.append((found.mean, candidate))
            sides = " / ".join(f"{100 * x.score:.0f}" for x in (found.helpful, found.honest, found.harmless))
            print(
                f"{candidate.method:16} {100 * found.mean:5.1f} {100 * found.min:5.1f}  {sides}  {candidate}",
                file=sys.stderr,
            )
        best = max(validated, key=lambda pair: pair[0])[1]
        title = f"{METHODS[best.method].title}, tuned ({len(tries)} tries)"
        lines.append(row(title, str(best), measure(best.recipe(), "test"), reference))
        print(lines[-1], file=sys.stderr)
    for path in sorted((ROOT / "assets" / "recipes").glob("*.yml")):
        recipe = load_recipe(path)
        town = str(TOWN / "base")
        experts = tuple(replace(expert, model=str(TOWN / expert.name)) for expert in recipe.experts)
        found = measure(replace(recipe, base=town, experts=experts), "test")
        lines.append(row(f"preset {recipe.name}", path.name, found, reference))
    text = "\n".join(lines)
    print(text)
    if not quick:
        RESULTS.write_text(
            "# Merge methods on Town\n\nMade by `python -m benchmarks.town_methods`: knobs tuned on validation probes "
            "(by the mean), scored on 900 test probes. The last column is the paired difference of the mean against "
            "TSV-M as the page proposes it, with its 95 % interval.\n\n" + text + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
