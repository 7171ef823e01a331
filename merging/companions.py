"""The files beside the weights of a finished merge: config, tokenizer, chat template, recipe and model card.

Everything is read before the merge starts, so that what is wrong with it is found first. Python files are never taken
along, and no absolute path of this machine is written down.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from merging.checkpoint import Checkpoint
from merging.errors import UserError
from merging.models import open_model
from merging.plan import Plan
from merging.recipe import Recipe
from merging.settings import KEPT_TEMPLATE
from merging.sources import HUB_ID, regular_file

TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
             "added_tokens.json", "vocab.json", "merges.txt")  # fmt: skip
TEMPLATE = "chat_template.jinja"
LIMIT = 100 << 20


@dataclass(frozen=True)
class Companions:
    files: dict[str, bytes]
    notices: tuple[str, ...]


def companions(plan: Plan, title: str) -> Companions:
    recipe = plan.recipe
    speaker = tokenizer_model(plan)
    files = {"config.json": _config(plan.base, recipe.out_dtype or recipe.dtype)}
    files |= _carried(plan.base, ("generation_config.json",))
    files |= _carried(speaker, (*TOKENIZER, TEMPLATE))
    if recipe.chat_template not in KEPT_TEMPLATE:
        files[TEMPLATE] = recipe.chat_template.encode()
    portable = without_paths(recipe)
    files["mergescope.yml"] = portable.to_yaml().encode()
    files["README.md"] = _card(plan, portable, title).encode()
    notices = []
    if "auto_map" in plan.base.config:
        notices.append("The model's own code is not taken along, and config.json no longer points to it (auto_map).")
    if not any(name in files for name in TOKENIZER):
        notices.append(f"{speaker.source} has no tokenizer files, so the merge has none.")
    return Companions(files, tuple(notices))


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe with every absolute folder cut to the last parts of its path that tell the models apart."""
    speaker = recipe.tokenizer_source
    short = _distinct_ends(_sources(recipe, None if speaker == "base" else speaker))
    return replace(
        recipe,
        base=recipe.base and short[recipe.base],
        experts=tuple(replace(expert, model=short[expert.model]) for expert in recipe.experts),
        tokenizer_source=speaker and short.get(speaker, speaker),
    )


def _sources(recipe: Recipe, *more: str | None) -> list[str]:
    named: list[str | None] = [recipe.base, *(expert.model for expert in recipe.experts), *more]
    return list(dict.fromkeys(source for source in named if source))


def _distinct_ends(sources: list[str]) -> dict[str, str]:
    most = max((len(Path(source).parts) for source in sources), default=1)
    short = {source: source for source in sources}
    for n in range(1, most):
        short = {s: "/".join(Path(s).parts[-n:]) if Path(s).is_absolute() else s for s in sources}
        if len(set(short.values())) == len(sources):
            break
    return short


def tokenizer_model(plan: Plan) -> Checkpoint:
    wanted = plan.recipe.tokenizer_source
    if wanted in (None, "base"):
        return plan.base
    known = next((model for model in (plan.base, *plan.experts) if model.source == wanted), None)
    return known or open_model(wanted, plan.recipe.folder)


def _config(base: Checkpoint, dtype: str | None) -> bytes:
    config = {key: value for key, value in base.config.items() if key != "auto_map"}
    if dtype:
        named = [key for key in ("dtype", "torch_dtype") if key in config]
        config |= dict.fromkeys(named or ["torch_dtype"], dtype)
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _carried(model: Checkpoint, names: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for name in names:
        try:
            path = regular_file(model.folder, name)
            if path and path.stat().st_size > LIMIT:
                raise ValueError(f"the file is larger than {LIMIT >> 20} MiB")
            if path:
                found[name] = path.read_bytes()
        except (ValueError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError("E_TOKENIZER", f"{why}.", where=f"{model.source}/{name}") from error
    return found


def _card(plan: Plan, recipe: Recipe, title: str) -> str:
    ids = [source if HUB_ID.fullmatch(source) else Path(source).name or source for source in _sources(recipe)]
    front = {"base_model": ids, "library_name": "transformers", "tags": ["merge", "mergekit"]}
    text = recipe.to_yaml()
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    paper, name = plan.method.paper, " ".join((recipe.name or title).split())
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {name}\n\n"
        f"A merge made with Mergescope by {plan.method.title} ([{paper.title}]({paper.url}), {paper.year}).\n\n"
        f"## Recipe\n\n{fence}yaml\n{text}{fence}\n"
    )
