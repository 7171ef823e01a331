"""A search against random search, 24 tries each, on a toy whose best merge is known.

python -m benchmarks.search_toy

Two experts of opposite habits: one answers, one refuses, and each spoils what the other is good at. A merge of them
is two numbers (how strong either is over all layers) and a tilt (late layers over early ones). Each side is best, 1,
at its own strengths; these agree in one place.
"""

import math
from collections.abc import Generator

from eval.scoring.board import HScore, Scores
from eval.scoring.score import Asked
from eval.searching.events import Rung, Tried
from eval.searching.samplers import Sampler, propose
from eval.searching.search import Measured, search
from eval.searching.space import knob_space
from merging.recipe import Expert, Recipe

RECIPE = Recipe("task_arithmetic", "base", (Expert("answers"), Expert("refuses")), (("lambda", 0.5),))
BEST = (0.55, 0.3, 0.1)  # strength of either expert, and the tilt
SEEDS, TRIALS = range(10), 24
_LADDER = (Rung("A", "toy", "screen", 100), Rung("unseen", "toy", "test", 100, most=2))


def toy(recipe: Recipe) -> tuple[float, float, float]:
    """Helpful, honest and harmless of a merge."""
    scale = dict(recipe.parameters)["lambda"]
    first, middle, last = scale if isinstance(scale, tuple) else (scale, scale, scale)
    answers, refuses = (
        float(dict(expert.parameters).get("weight", 1.0)) * (first + middle + last) / 3  # type: ignore[operator]
        for expert in recipe.experts
    )
    a, r, t = answers - BEST[0], refuses - BEST[1], last - first - BEST[2]  # type: ignore[operator]
    tilt = math.exp(-(t**2))
    helpful, harmless = math.exp(-((a - r / 2) ** 2) / 0.16), math.exp(-((r - a / 2) ** 2) / 0.16)
    return helpful * tilt, math.exp(-((a + r) ** 2) / 0.36) * tilt, harmless * tilt


def measure(recipe: Recipe, rung: Rung) -> Generator[Asked, None, Measured]:
    sides = toy(recipe)
    each = [HScore(share, share, share, rung.n_probes) for share in sides]
    return Measured(Scores(*each, mean=sum(sides) / 3, min=min(sides), broken=0.0, well_formed=1.0), {})
    yield  # a generator that has nothing to tell on its way


def best_found(sampler: Sampler, seed: int) -> float:
    """Mean of mean and worst side, of the best try; 1 is the optimum."""
    space = knob_space(RECIPE)
    events = search(space, measure, _LADDER, propose(space, sampler, TRIALS, seed), TRIALS)
    scores = [event.scores for event in events if isinstance(event, Tried) and event.rung == "A" and event.scores]
    return max((one.mean + one.min) / 2 for one in scores)


def main() -> None:
    print("seed   search   random")
    found = {sampler: [best_found(sampler, seed) for seed in SEEDS] for sampler in ("tpe", "random")}
    for seed, tpe, random in zip(SEEDS, *found.values(), strict=True):
        print(f"{seed:4} {tpe:8.3f} {random:8.3f}")
    near = {name: sum(value >= 0.95 for value in values) for name, values in found.items()}
    better = sum(tpe > random for tpe, random in zip(*found.values(), strict=True))
    print(
        f"Within 5 % of the optimum in {TRIALS} tries: search {near['tpe']}, random {near['random']} of {len(SEEDS)} "
        f"seeds; search is better in {better}."
    )


if __name__ == "__main__":
    main()
