"""Where a search looks next: Optuna's samplers, or every point of a grid of shares.

Each is deterministic: told the same scores it proposes the same points, which is how a stopped search goes on.
"""

import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count, pairwise
from math import ceil, comb
from typing import TYPE_CHECKING, Literal

from merging.errors import UserError

if TYPE_CHECKING:
    import optuna

    from eval.searching.space import Dial, Point, Space
    from merging.recipe import Recipe

SEED = "seed"  # the one dial of rolls
Sampler = Literal["tpe", "random", "cmaes", "blocks", "halving", "simplex", "rolls"]
SAMPLERS: Mapping[Sampler, str] = {
    "tpe": "Optuna's; learns from every try",
    "random": "anywhere",
    "cmaes": "CMA-ES, as mergekit-evolve: for 200 tries or more",
    "blocks": "which model gives each group of layers",
    "halving": "the same drawn at random; the better half goes on, again and again, to more probes",
    "simplex": "an even grid of shares, as rewarded soups are drawn",
    "rolls": "the next seeds of a method that draws at random, such as m3",
}


@dataclass(frozen=True)
class Told:
    """What a point was worth, shares 0..1; one number or two. `over`: by how much it breaks a limit."""

    worth: tuple[float, ...]
    over: float


Proposals = Generator["Point", Told | None, None]


def propose(
    space: "Space", sampler: Sampler, trials: int, seed: int, presets: "Sequence[Recipe]" = (), aims: int = 2
) -> Proposals:
    """Points without end (a grid has one); what each was worth is sent back, None where it is no merge.

    aims: how many numbers that is.
    """
    if sampler == "simplex":
        names = [dial.name for dial in space.dials]
        yield space.start
        for shares in simplex(len(names), trials - 1):
            yield dict(zip(names, shares, strict=True))
        return
    if sampler == "rolls":
        for seed in count(int(space.start[SEED])):
            yield {SEED: seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constraints and multivariate TPE are "experimental" for years now
        study = _study(sampler, seed, 1 if sampler == "cmaes" else aims)
    for point in [space.start] if sampler in ("random", "halving") else _seeds(space, trials, seed, presets):
        study.enqueue_trial(dict(point))
    while True:
        trial = study.ask()
        told = yield {dial.name: _suggest(trial, dial) for dial in space.dials}
        if told is None:
            study.tell(trial, state=_failed())
        else:
            trial.set_user_attr("over", told.over)
            study.tell(trial, _one(told) if sampler == "cmaes" else told.worth)


def simplex(n: int, points: int) -> list[tuple[float, ...]]:
    """An even grid of shares of n models that sum to 1, as fine as `points` of them allow; corners are always there."""
    steps = 1
    while n > 1 and comb(steps + n, n - 1) <= points:
        steps += 1
    grid = []
    for bars in combinations(range(steps + n - 1), n - 1):
        ends = (-1, *bars, steps + n - 1)
        grid.append(tuple((b - a - 1) / steps for a, b in pairwise(ends)))
    return grid


def _study(sampler: Sampler, seed: int, aims: int) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chosen: optuna.samplers.BaseSampler
    if sampler in ("random", "halving"):
        chosen = optuna.samplers.RandomSampler(seed=seed)
    elif sampler == "cmaes":  # mergekit-evolve's choice: for many trials
        try:
            chosen = optuna.samplers.CmaEsSampler(seed=seed, sigma0=1 / 6)
        except ImportError as error:
            raise UserError("E_SAMPLER", "CMA-ES needs the package `cmaes`.", where="--sampler",
                            do="Install it with `pip install cmaes`, or use tpe.") from error  # fmt: skip
    else:
        chosen = optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            n_startup_trials=1,
            gamma=lambda n: min(25, ceil(n / 4)),  # of a few dozen tries Optuna's own tenth is too few to learn from
            constraints_func=lambda trial: [trial.user_attrs["over"]],
        )
    return optuna.create_study(directions=aims * [optuna.study.StudyDirection.MAXIMIZE], sampler=chosen)


def _seeds(space: "Space", trials: int, seed: int, presets: "Sequence[Recipe]") -> "list[Point]":
    """Good guesses, then points that lie evenly; in all at most half of the trials."""
    from scipy.stats import qmc

    guesses = space.seeds(presets)
    n = min(8, trials // 6, max(0, trials // 2 - len(guesses)))
    even = qmc.Halton(len(space.dials), rng=seed).random(n) if n else []
    found = [{dial.name: _at(dial, float(share)) for dial, share in zip(space.dials, row, strict=True)} for row in even]
    return [*guesses[: max(1, trials // 2)], *found]


def _at(dial: "Dial", share: float) -> float | str:
    if dial.choices:
        return dial.choices[min(int(share * len(dial.choices)), len(dial.choices) - 1)]
    return dial.nearest(dial.low + share * (dial.high - dial.low))


def _suggest(trial: "optuna.Trial", dial: "Dial") -> float | str:
    if dial.choices:
        return trial.suggest_categorical(dial.name, dial.choices)
    return dial.nearest(trial.suggest_float(dial.name, dial.low, dial.high, step=dial.step))


def _one(told: Told) -> float:
    """All that counts in one number; a merge that breaks a limit counts below all others."""
    return sum(told.worth) / len(told.worth) - (1.0 if told.over > 0 else 0.0)


def _failed() -> "optuna.trial.TrialState":
    from optuna.trial import TrialState

    return TrialState.FAIL
