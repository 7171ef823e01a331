"""The model card of an export, in the form that the Hub reads. Whatever comes from files is escaped."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import yaml

from merging.companions import RECIPE, short_names, without_paths
from merging.events import Reloaded
from merging.hub_cache import HUB_ID
from merging.licences import hub_fields, strictest
from merging.manifest import facts_of, source_models
from merging.passport import licence_of
from merging.plan import Plan
from merging.sources import model_parts

Scores = Mapping[str, tuple[float, float, float, int]]  # H -> share in 0..1, its 95 % interval, number of probes


def card(plan: Plan, title: str, tested: Reloaded | None = None, scores: Scores | None = None) -> str:
    """The card of a merged model; `tested` and `scores` are told where they are known."""
    counts = facts_of(plan)["parameters"]
    base = counts["base"]
    beside = ", as many as the base" if base == counts["merge"] else f"; the base has {base:,}"
    found = tested.words() if tested else ["The export was not loaded again after it was written."]
    parts = [
        opening(plan, title, "a merge", ["merge", "mergekit", "mergescope"], "transformers"),
        f"{counts['merge']:,} parameters{beside}.",
        section("Tested", *(f"- {line}" for line in found)),
        _scores(scores) if scores else "",
        *sources(plan),
        recipe_part(plan, f"python -m merging merge {RECIPE} OUT/"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def opening(plan: Plan, title: str, kind: str, tags: Sequence[str], library: str) -> str:
    """Front matter, title, and the method in one sentence."""
    recipe = without_paths(plan.recipe)
    models = [part for source in short_names(plan.recipe) for part in model_parts(source, plan.recipe.folder)]
    front = {
        "base_model": list(dict.fromkeys(map(_model_id, models))),
        "base_model_relation": "merge", **hub_fields(strictest(_licences(plan).values())[0]),
        "library_name": library, "pipeline_tag": "text-generation", "tags": list(tags),
    }  # fmt: skip
    paper = plan.method.paper
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {plain(recipe.name or title)}\n\n"
        f"This is {kind} made with Mergescope by {plan.method.title} ([{paper.title}]({paper.url}), {paper.year})."
    )


def sources(plan: Plan) -> tuple[str, str]:
    """The models with their commits and licences, and what the strictest licence asks."""
    licences = _licences(plan)
    rows = ["| model | commit | licence |", "|---|---|---|"]
    rows += [f"| {plain(name)} | {model.commit or '—'} | {plain(licences[name])} |"
             for name, model in source_models(plan).items()]  # fmt: skip
    words = plain(strictest(licences.values())[1])
    told = f"Of the strictest of its sources, as their cards say (this is no legal advice): {words}"
    return section("Sources", "\n".join(rows)), section("Licence", told)


def recipe_part(plan: Plan, command: str) -> str:
    text = without_paths(plan.recipe).to_yaml()
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    again = f"The same weights again, with the sources where the recipe names them:\n\n```\n{command}\n```"
    return section("Recipe", f"{fence}yaml\n{text}{fence}", again)


def section(title: str, *parts: str) -> str:
    gap = "\n" if all(part.startswith("- ") for part in parts) else "\n\n"
    return f"## {title}\n\n{gap.join(parts)}"


def plain(text: str) -> str:
    """Text from a file as one line that Markdown and HTML leave as it is."""
    return re.sub(r"([\\`*_\[\]|~$!#{}])", r"\\\1", escape(" ".join(text.split()), quote=False))


def _scores(scores: Scores) -> str:
    rows = ["| | share passed | 95 % interval | probes |", "|---|---|---|---|"]
    rows += [f"| {plain(h)} | {100 * value:.1f} % | {100 * low:.0f} to {100 * high:.0f} % | {n} |"
             for h, (value, low, high, n) in scores.items()]  # fmt: skip
    return section("Scores", "\n".join(rows), "By exact rules on Mergescope's own probes; differences inside the "
                   "intervals may be chance.")  # fmt: skip


def _licences(plan: Plan) -> dict[str, str]:
    return {name: licence_of(model) for name, model in source_models(plan).items()}


def _model_id(source: str) -> str:
    """A Hub id without its revision; of a folder its name."""
    return source.partition("@")[0] if HUB_ID.fullmatch(source) else Path(source).name or source
