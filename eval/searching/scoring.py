"""Scores the tries of a search on real models: which probes on which rung, and the merge that is never written."""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.judging.judges import Verdict
from eval.judging.probes import ProbeSet, Split, load_probes
from eval.scoring.board import summarise
from eval.scoring.margins import Margin, margins
from eval.scoring.score import Asked, Loader, Scored, score_model
from eval.searching.aims import Aim
from eval.searching.events import Rung
from eval.searching.samplers import Sampler, propose
from eval.searching.search import Measure, Measured, SearchEvent, search
from eval.searching.space import Space, block_space, knob_space, roll_space, share_space
from merging.device import choose_device
from merging.errors import UserError
from merging.plan import make_plan
from merging.recipe import Recipe, load_recipe
from merging.sources import spelled_out

# Tuning on what others report makes their numbers worthless (mergekit-evolve refuses some of these too).
PUBLIC = (
    "advbench", "agieval", "alpacaeval", "arc", "arena", "bbh", "bbq", "bigbench", "boolq", "bold", "ceval", "cmmlu",
    "commonsenseqa", "donotanswer", "drop", "gpqa", "gsm8k", "halueval", "harmbench", "hellaswag", "hendrycks",
    "hhrlhf", "humaneval", "ifeval", "lambada", "livebench", "longbench", "math", "mbpp", "medqa", "mgsm", "minerva",
    "mmlu", "mtbench", "musr", "naturalquestions", "openbookqa", "piqa", "rewardbench", "sciq", "simpleqa", "siqa",
    "squad", "strongreject", "swebench", "toxigen", "triviaqa", "truthfulqa", "wildguard", "winogrande", "xstest",
)  # fmt: skip


def search_recipe(
    path: Path,
    probes: str = "town",
    sampler: Sampler = "tpe",
    trials: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    aim: Aim = "both",
) -> Iterator[SearchEvent]:
    """A search from a recipe file; its problems, and those of the probes, are raised before anything is asked."""
    recipe = spelled_out(load_recipe(path))  # what it finds is a file that may stand elsewhere
    refuse_public(probes)
    if (trials is not None and trials < 1) or (minutes is not None and not minutes > 0):
        raise UserError("E_USAGE", "A search needs at least one try and some time.", where="--trials, --minutes")
    trials = 24 if trials is None and minutes is None else trials
    rungs = ladder(probes, sampler)
    space = space_of(recipe, sampler)
    last = load_probes(rungs[-1].probes, rungs[-1].split)
    clusters = {probe.id: probe.cluster for probe in last.probes if aim != "harmless" or probe.h == aim}
    proposals = propose(space, sampler, trials or 48, seed, presets(), 2 if aim == "both" else 1)
    yield from search(space, merge_scores(device), rungs, proposals, trials, minutes, clusters, aim)


def refuse_public(name: str) -> None:
    plain = "".join(c for c in name.lower() if c.isalnum())
    if any(plain.startswith(public) for public in PUBLIC):
        raise UserError(
            "E_BENCHMARK",
            f"{name} is a public benchmark: a merge that is tuned on it says nothing by its score there.",
            where="--probes",
            do="Search on town or standard, and report the benchmark afterwards.",
        )


def ladder(probes: str, sampler: Sampler = "tpe") -> tuple[Rung, ...]:
    """Town: its screen, its validation and its test probes. Real models: the quick probes by likelihood and then by
    answers, all standard probes, and the sealed ones. Halving has steps between, of two or three times the probes.
    """
    if probes in ("quick", "sealed"):
        raise UserError("E_USAGE", f"A search on {probes} probes alone has no others to report.", where="--probes",
                        do="Use standard, which begins with quick and ends with sealed.")  # fmt: skip
    if sampler == "halving":
        return _halving(probes)
    if probes == "standard":
        return (
            _rung("A", "quick", by="likelihood"),
            _rung("B", "quick", share=1 / 3),
            _rung("C", "standard", most=5),
            _rung("unseen", "sealed", most=2),
        )
    return (
        _rung("A", probes, "screen"),
        _rung("B", probes, "validation", share=1 / 3),
        _rung("unseen", probes, "test", most=2),
    )


def _halving(probes: str) -> tuple[Rung, ...]:
    """Successive halving (Jamieson and Talwalkar 2016): the better half goes on, for about the same cost each time."""
    if probes == "standard":
        return (
            _rung("A", "quick", by="likelihood"),
            _rung("B", "quick", share=1 / 2),
            _rung("C", "standard", part=1 / 2, share=1 / 2),
            _rung("D", "standard", share=1 / 2),
            _rung("unseen", "sealed", most=2),
        )
    return (
        _rung("A", probes, "screen", part=1 / 3),
        _rung("B", probes, "screen", share=1 / 2),
        _rung("C", probes, "validation", part=1 / 2, share=1 / 2),
        _rung("D", probes, "validation", share=1 / 2),
        _rung("unseen", probes, "test", most=2),
    )


def _rung(name: str, probes: str, split: Split = "test", part: float = 1.0, **more: Any) -> Rung:
    return Rung(name, probes, split, round(part * len(load_probes(probes, split).probes)), **more)


def space_of(recipe: Recipe, sampler: Sampler) -> Space:
    plan = make_plan(recipe)  # every problem at once, before anything is asked
    if recipe.slices or recipe.stages:
        raise UserError("E_SLICES", "A search turns one merge of whole models; this recipe has slices or stages.",
                        where="recipe", do="Search a recipe with `models:` alone.")  # fmt: skip
    if sampler in ("blocks", "halving"):
        return block_space(recipe, [tensor.name for tensor in plan.tensors])
    if sampler == "rolls":
        return roll_space(recipe)
    return share_space(recipe) if sampler == "simplex" else knob_space(recipe)


def presets() -> list[Recipe]:
    """The project's own recipes; only their numbers count."""
    folder = Path(__file__).resolve().parents[2] / "assets" / "recipes"
    return [load_recipe(path) for path in sorted(folder.glob("*.yml"))]


def merge_scores(device: str = "auto") -> Measure:
    """Scores merges of recipes; every answer is kept, so that a merge that was asked before takes no time."""
    loader = Loader(choose_device(device).type)

    def measure(recipe: Recipe, rung: Rung) -> Generator[Asked, None, Measured]:
        plan, asked = make_plan(recipe), load_probes(rung.probes, rung.split)
        if rung.by == "likelihood":
            found = yield from margins(plan, asked, loader)
            return leaning(asked, found)
        for event in score_model("merge", plan, asked, loader, n=rung.n_probes):
            if isinstance(event, Scored):
                return Measured(event.scores, {one.probe_id: one.verdict.passed for one in event.answers})
            yield event
        raise AssertionError("scoring ends with its scores")

    return measure


def leaning(asked: ProbeSet, found: Mapping[str, Margin]) -> Measured:
    """What margins come to, in the form of scores."""
    passed = {id: one.by > 0 and not one.broken for id, one in found.items()}
    verdicts = [
        Verdict(passed[id], "", one.broken, not one.broken, "pass" if passed[id] else "fail")
        for id, one in found.items()
    ]
    return Measured(summarise(asked.probes, verdicts, asked.weighted), passed)
