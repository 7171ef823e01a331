"""Safety as a search objective without generation: `sum_t CE(domain_t) + g CE(refusals)` is made least.

CE is the mean cross-entropy a token of answers that the experts wrote to their own prompts; the refusals are those that
the safest expert wrote (Hammoud et al. 2024, "One bad model spoils the bunch", arXiv 2406.14563, whose data are drawn
for the purpose; ours are a calibration's texts).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.calibrating.texts import Text, read_for
from eval.judging.refusals import refuses
from eval.searching.samplers import Sampler, Told, propose
from eval.searching.search import NO_MERGE
from eval.searching.space import knob_space
from merging.checkpoint import Checkpoint
from merging.device import choose_device
from merging.errors import UserError
from merging.plan import Plan, make_plan
from merging.recipe import Recipe, load_recipe
from merging.sources import spelled_out

TRIALS = 24


@dataclass(frozen=True)
class Losses:
    """Cross-entropies in nats a token. domain: of each expert's answers; refusals: of the safest expert's."""

    domain: tuple[float, ...]
    refusals: float

    def sum(self, g: float) -> float:
        return sum(self.domain) + g * self.refusals


@dataclass(frozen=True)
class Trusted:
    """The safest expert, and how many of its own answers refuse."""

    expert: str
    refusals: int
    answers: int

    def words(self) -> str:
        return f"The safest expert is {self.expert}: {self.refusals} of its {self.answers} answers refuse."


@dataclass(frozen=True)
class Weighed:
    """One model's losses; `number` of a try, None of a source."""

    model: str
    number: int | None
    losses: Losses
    total: float


@dataclass(frozen=True)
class Safest:
    """The try with the least sum, and the losses of it and of the recipe itself, which is try 0. `unsafe`: it finds the
    refusals less likely than every source does.
    """

    recipe: str
    number: int
    unsafe: bool
    before: Losses
    after: Losses

    def words(self) -> str:
        was, now = (sum(one.domain) / len(one.domain) for one in (self.before, self.after))
        found = f"Try {self.number} is the best." if self.number else "No try is better than the recipe itself."
        found += (
            f" Nats a token, before and after: refusals {self.before.refusals:.3f} and {self.after.refusals:.3f}, "
            f"the experts' own answers {was:.3f} and {now:.3f}."
        )
        alarm = " Less safe than every source: it finds the refusals less likely than any of them does."
        return found + (alarm if self.unsafe else "")


Ask = Callable[[Plan | Checkpoint], Losses]


def safest(
    path: Path, safe: str = "", g: float = 1.0, trials: int = TRIALS, sampler: Sampler = "tpe", seed: int = 0,
    device: str = "auto", each: int = 64,
) -> Iterator[Trusted | Weighed | Safest]:  # fmt: skip
    """From a recipe file whose calibration has the experts' answers; `safe` names the safest expert, else it is the one
    that refuses most.
    """
    recipe = spelled_out(load_recipe(path))
    if not recipe.calibration:
        raise UserError("E_TEXTS", "the experts' answers lie in a calibration, and the recipe names none",
                        where="calibration", do="Measure it: python -m eval calibrate RECIPE.yml FOLDER.")  # fmt: skip
    names = [expert.name for expert in recipe.beside_base]
    if safe and safe not in names:
        raise UserError("E_TEXTS", f"no expert is called {safe}; they are {', '.join(names)}", where="--safe")
    if trials < 1:
        raise UserError("E_USAGE", "at least one try is needed, the recipe itself", where="--trials")
    if (plan := make_plan(recipe)).calibration is None:
        raise UserError("E_TEXTS", f"this calibration cannot be taken: {' '.join(plan.notices)}", where="calibration",
                        do="Measure these models: python -m eval calibrate RECIPE.yml FOLDER.")  # fmt: skip
    texts = read_for(str(recipe.folder / recipe.calibration / "texts.jsonl"), plan.experts, each)
    domain = [[text for text in own if text.messages] for own in texts]
    refusing = [[text for text in own if refuses(text.messages[-1].content)] for own in domain]
    at = names.index(safe) if safe else max(range(len(names)), key=lambda t: len(refusing[t]))
    safe, refusals = names[at], refusing[at]
    if not refusals or not all(domain):
        raise UserError("E_TEXTS", f"{safe} refuses nothing there, or an expert has no conversation", where="--safe")
    yield Trusted(safe, len(refusals), len(domain[at]))
    yield from least(recipe, g, trials, sampler, seed, _asker(device, domain, refusals))


def least(recipe: Recipe, g: float, trials: int, sampler: Sampler, seed: int, ask: Ask) -> Iterator[Weighed | Safest]:
    """The search itself; try 0 is the recipe."""
    space, plan = knob_space(recipe), make_plan(recipe)
    sources: list[float] = []
    for expert, model in zip(recipe.beside_base, plan.experts, strict=True):
        losses = ask(model)
        sources.append(losses.refusals)
        yield Weighed(expert.name, None, losses, losses.sum(g))
    proposals = propose(space, sampler, trials, seed, aims=1)
    best: tuple[float, int, Recipe, Losses] | None = None
    start: Losses | None = None
    told: Told | None = None
    for number in range(trials):
        point = proposals.send(told) if number else next(proposals)
        tried, told = space.recipe_at(point), None
        try:
            losses = ask(make_plan(tried))
        except UserError as error:
            if number == 0 or error.code not in NO_MERGE:
                raise
            continue
        start = start or losses
        told = Told((-losses.sum(g),), 0.0)
        yield Weighed("merge", number, losses, losses.sum(g))
        if best is None or losses.sum(g) < best[0]:
            best = losses.sum(g), number, tried, losses
    assert best is not None
    assert start is not None
    yield Safest(best[2].to_yaml(), best[1], best[3].refusals > max(sources), start, best[3])


def _asker(device: str, domain: Sequence[Sequence[Text]], refusals: Sequence[Text]) -> Ask:
    from eval.running.likelihood import log_likelihoods, written
    from eval.running.runtime import encode
    from eval.scoring.score import Loader

    loader = Loader(choose_device(device).type)

    def ask(model: Plan | Checkpoint) -> Losses:
        loaded = loader.model(model)

        def entropy(texts: Sequence[Text]) -> float:
            lost, tokens = 0.0, 0
            for text in texts:
                asked, reply = text.question(), text.messages[-1].content
                tokens += len(encode(loaded.tokenizer, written(loaded.tokenizer, asked, reply), False))
                lost -= log_likelihoods(loaded.module, loaded.tokenizer, asked, [reply])[0]
            return lost / max(tokens, 1)

        return Losses(tuple(map(entropy, domain)), entropy(refusals))

    return ask


def told(event: Weighed, names: Sequence[str]) -> str:
    parts: Mapping[str, float] = {
        **dict(zip(names, event.losses.domain, strict=True)),
        "refusals": event.losses.refusals,
    }
    who = event.model if event.number is None else f"try {event.number}"
    return f"{who:12} {event.total:7.3f}  " + "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
