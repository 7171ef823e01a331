"""The files beside the weights of a finished merge: config, generation config, tokenizer, chat templates, recipe.

Everything is read before the merge starts, so that what is wrong with it is found first. Python files are never taken
along, and no absolute path of this machine is written down.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.chat_templates import NAMED
from merging.checkpoint import Checkpoint
from merging.errors import UserError
from merging.model_files import GENERATION, OLD_TEMPLATE, TEMPLATE, TEMPLATES, TOKENIZER, TOKENIZER_LIMIT
from merging.passport import template_of
from merging.plan import Plan
from merging.recipe import Recipe
from merging.settings import KEPT_TEMPLATE
from merging.sources import model_parts, regular_file
from merging.strict_json import json_bytes, parse_json
from merging.union_tokenizer import with_added
from merging.view import View, stored
from merging.vocabulary import row_count
from merging.words import reason

RECIPE = "mergescope.yml"
ENDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


@dataclass(frozen=True)
class Companions:
    files: dict[str, bytes]
    notices: tuple[str, ...]


def companions(plan: Plan) -> Companions:
    """Read and make every file beside the weights; raises UserError for what cannot be read.

    The model that gives the tokenizer gives the chat templates and the ending tokens as well.
    """
    recipe = plan.recipe
    speaker = tokenizer_model(plan)
    notices: list[str] = []
    files = _carried(speaker, (*TOKENIZER, TEMPLATE, OLD_TEMPLATE, *_more_templates(speaker)))
    files = with_added(files, plan.tokenizer)
    template = _wanted_template(plan, speaker)
    if template:
        files.pop(OLD_TEMPLATE, None)
        files[TEMPLATE] = template.encode()
    elif not has_template(files) and OLD_TEMPLATE in files:
        files |= _modern(files[OLD_TEMPLATE], f"{speaker.source}/{OLD_TEMPLATE}")
    files |= _generation(plan, speaker)
    files["config.json"] = _config(plan, speaker)
    files[RECIPE] = without_paths(recipe).to_yaml().encode()
    if "auto_map" in plan.base.config:
        notices.append("The model's own code is not taken along, and config.json no longer points to it (auto_map).")
    if not any(name in files for name in TOKENIZER):
        notices.append(f"{speaker.source} has no tokenizer files, so the merge has none.")
    notices += _unheard(plan, speaker, files)
    return Companions(files, tuple(notices))


def has_template(files: Mapping[str, bytes]) -> bool:
    """Whether chat software finds a template: in a file of its own, or inside the tokenizer's config."""
    own = TEMPLATE in files or any(name.startswith(f"{TEMPLATES}/") for name in files)
    return own or bool(_json(files.get("tokenizer_config.json", b"")).get("chat_template"))


def ending_tokens(files: Mapping[str, bytes]) -> set[int]:
    """Ids that end an answer, as a folder's generation config says, else its config."""
    for name in (GENERATION, "config.json"):
        ids = _json(files.get(name, b"")).get("eos_token_id")
        if ids is not None:
            return {i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int}
    return set()


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe with every absolute folder cut to the last parts of its path that tell the models apart."""
    return recipe.renamed(short_names(recipe).__getitem__)


def short_names(recipe: Recipe) -> dict[str, str]:
    """Every model that the recipe names, and what it is called where no absolute path may stand; the base first."""
    parts = {source: model_parts(source, recipe.folder) for source in recipe.sources}
    ends = _distinct_ends(list(dict.fromkeys(part for several in parts.values() for part in several)))
    return {source: "+".join(ends[part] for part in several) for source, several in parts.items()}


def _distinct_ends(sources: list[str]) -> dict[str, str]:
    most = max((len(Path(source).parts) for source in sources), default=1)
    short = {source: source for source in sources}
    for n in range(1, most):
        short = {s: "/".join(Path(s).parts[-n:]) if Path(s).is_absolute() else s for s in sources}
        if len(set(short.values())) == len(sources):
            break
    return short


def tokenizer_model(plan: Plan) -> Checkpoint:
    """Whose tokenizer the merge has; an adapter without one of its own speaks as the model below it."""
    return stored(plan.tokenizer.source)


def voice(model: Checkpoint) -> Path:
    """The folder whose tokenizer and template a model speaks with: an adapter's own where it holds a tokenizer."""
    return next((f for f in model.folders if any((f / name).is_file() for name in TOKENIZER)), model.folders[-1])


def _config(plan: Plan, speaker: Checkpoint) -> bytes:
    config = dict(plan.config)
    if speaker.fingerprint != stored(plan.base).fingerprint:
        config |= {key: speaker.config[key] for key in ENDS if key in speaker.config}
    rows = row_count(plan.base)
    return json_bytes(config if rows is None else _with_vocabulary(config, rows))


def _with_vocabulary(config: dict[str, Any], rows: int) -> dict[str, Any]:
    """vocab_size where config.json says it: at the top or in the part about text."""
    found = dict(config)
    for key, value in config.items():
        if key == "vocab_size":
            found[key] = rows
        elif key == "text_config" and isinstance(value, dict):
            found[key] = _with_vocabulary(value, rows)
    return found


def _generation(plan: Plan, speaker: Checkpoint) -> dict[str, bytes]:
    """The generation config, whole; without one, the ending tokens that config.json names."""
    found = _carried(speaker, (GENERATION,))
    if found:
        return found
    ends = {key: speaker.config[key] for key in ENDS if speaker.config.get(key) is not None}
    if "eos_token_id" in ends:
        return {GENERATION: json_bytes(ends)}
    return {} if speaker is stored(plan.base) else _carried(plan.base, (GENERATION,))


def _wanted_template(plan: Plan, speaker: Checkpoint) -> str:
    """The template that the recipe asks for; empty where the tokenizer's own stays.

    `auto`: the one that most models have, base included; of equally many the tokenizer's own, as mergekit counts.
    """
    wanted = plan.recipe.chat_template
    if wanted not in KEPT_TEMPLATE:
        return NAMED.get(wanted, wanted)
    if wanted != "auto":
        return ""
    own = template_of(speaker)
    found = [template for model in plan.models if (template := template_of(stored(model)))]
    most = max(found, key=lambda template: (found.count(template), template == own), default=own)
    return "" if most == own else most


def _more_templates(model: Checkpoint) -> list[str]:
    """Named templates, such as for tools: one Jinja file each in a folder of their own."""
    folder = voice(model) / TEMPLATES
    return [f"{TEMPLATES}/{path.name}" for path in sorted(folder.glob("*.jinja"))] if folder.is_dir() else []


def _modern(data: bytes, where: str) -> dict[str, bytes]:
    """The template of a processor's old JSON file under the name that tokenizers read."""
    template = _json(data).get("chat_template")
    if not isinstance(template, str):
        raise UserError("E_TEMPLATE", "the file holds no chat_template.", where=where,
                        do="Remove it, or write `chat_template:` into the recipe.")  # fmt: skip
    return {TEMPLATE: template.encode()}


def _unheard(plan: Plan, speaker: Checkpoint, files: Mapping[str, bytes]) -> Iterator[str]:
    """What an expert needs for its answers to begin and end, and the merge will not have."""
    ends, told = ending_tokens(files), has_template(files)
    for expert in dict.fromkeys(plan.experts):
        if stored(expert).fingerprint == speaker.fingerprint:
            continue
        own = _carried(expert, ("tokenizer_config.json", TEMPLATE, GENERATION, *_more_templates(expert)))
        theirs = sorted(ending_tokens({"config.json": json_bytes(expert.config)} | own))
        missing = [i for i in theirs if (expert.placed(i) if isinstance(expert, View) else i) not in ends]
        do = f"Write `tokenizer_source: {expert.source}` to take its tokenizer, template and ends."
        if not told and has_template(own):
            yield f"{speaker.source} has no chat template, so the merge has none; {expert.source} has one. {do}"
        elif missing:
            ids = ", ".join(map(str, missing))
            yield f"{expert.source} ends its answers with token {ids}, which does not end those of the merge. {do}"


def _json(data: bytes) -> dict[str, Any]:
    """A JSON object, or nothing where it is none: what is wrong with it is told by whoever needs it."""
    try:
        found = parse_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _carried(model: Checkpoint, names: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for name in names:
        try:
            path = regular_file(model.folders[-1] if name == GENERATION else voice(model), name)
            if path and path.stat().st_size > TOKENIZER_LIMIT:
                raise ValueError(f"the file is larger than {TOKENIZER_LIMIT >> 20} MiB")
            if path:
                found[name] = _without_code(name, path.read_bytes())
        except (ValueError, OSError) as error:
            raise UserError("E_TOKENIZER", f"{reason(error)}.", where=f"{model.source}/{name}") from error
    return found


def _without_code(name: str, data: bytes) -> bytes:
    """A config that points to Python files of the model (auto_map) without that: they are not taken along."""
    found = _json(data) if name.endswith("_config.json") else {}
    if "auto_map" not in found:
        return data
    return json_bytes({key: value for key, value in found.items() if key != "auto_map"})
