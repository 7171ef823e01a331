"""A model's passport: what its headers and small files say of it. No weight is read."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from merging.adapter import AdapterCheckpoint
from merging.checkpoint import Checkpoint
from merging.compatibility import mismatches
from merging.config_checks import HEAD
from merging.errors import UserError
from merging.layers import layer_count
from merging.licences import licence
from merging.model_files import ADAPTER_CONFIG, GENERATION, TEMPLATE, TOKENIZER_LIMIT
from merging.safe_yaml import read_yaml
from merging.sources import regular_file
from merging.strict_json import read_json
from merging.vocabulary import embedding_of, read_vocabulary

CARD_LIMIT = 1 << 20


@dataclass(frozen=True)
class Adapter:
    """What an adapter's own files say."""

    base: str  # as its maker named it; of a path only the last part
    rank: int
    alpha: float
    kind: str  # "LoRA", "rsLoRA", "DoRA"
    targets: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class Passport:
    """None, 0 or empty where the files do not say. Hashes are the first 8 digits of a sha256."""

    source: str
    architecture: str | None
    model_type: str | None
    parameters: int  # a tied head is counted once
    n_bytes: int  # of the weights as stored, an adapter's base included
    dtypes: tuple[tuple[str, float], ...]  # with their share of the parameters, largest first
    layers: int
    hidden_size: int | None
    vocab_rows: int | None  # of the embedding
    tokens: int | None  # of the tokenizer
    tokenizer: str | None  # hash of token -> id
    template: str | None  # hash
    template_start: str  # its first line
    eos: tuple[int, ...]  # config.json
    eos_generation: tuple[int, ...]  # generation_config.json
    eos_agree: bool
    licence: str  # the Hub's id, or "unknown"; the stricter of an adapter's own and its base's
    commit: str | None  # of a Hub model
    download_bytes: int  # of a Hub model that is not on this machine
    tied: bool
    adapter: Adapter | None


def passport(model: Checkpoint) -> Passport:
    """Read from headers and small files; a small file that cannot be used counts as not there."""
    config = model.config
    names = config.get("architectures")
    embedding = embedding_of(model)
    heads = [name for name in model.tensors if HEAD.fullmatch(name)]
    tied = bool(embedding) and (config.get("tie_word_embeddings") is True or not heads)
    sizes = {n: prod(i.shape) for n, i in model.tensors.items() if not (tied and n in heads)}
    of_dtype: Counter[str] = Counter()
    for name, size in sizes.items():
        of_dtype[model.tensors[name].dtype] += size
    total = sum(sizes.values())
    ids, template = _token_ids(model), template_of(model)
    eos, eos_generation = _ids(config), _ids(_json(model, GENERATION))
    return Passport(
        source=model.source,
        architecture=str(names[0])[:80] if isinstance(names, list) and names else None,
        model_type=config.get("model_type"),
        parameters=total,
        n_bytes=sum(entry.end - entry.start for part in model.chain for _, entry in _stored(part).places.values()),
        dtypes=tuple((name, size / total) for name, size in of_dtype.most_common() if size),
        layers=layer_count(model.tensors),
        hidden_size=next((config[key] for key in ("hidden_size", "n_embd", "d_model") if key in config), None),
        vocab_rows=model.tensors[embedding].shape[0] if embedding else None,
        tokens=len(ids) if ids else None,
        tokenizer=_hash("\0".join(f"{token}\1{i}" for token, i in sorted(ids.items()))) if ids else None,
        template=_hash(template) if template else None,
        template_start=template.strip().split("\n", 1)[0][:120] if template else "",
        eos=eos,
        eos_generation=eos_generation,
        eos_agree=not (eos and eos_generation) or set(eos) <= set(eos_generation),
        licence=licence_of(model),
        commit=model.commit,
        download_bytes=model.bytes_to_download,
        tied=tied,
        adapter=_adapter(model) if isinstance(model, AdapterCheckpoint) else None,
    )


def differences(base: Passport, other: Passport, misfits: Sequence[UserError] = ()) -> tuple[str, ...]:
    """What sets a model apart from its base, a short phrase each; `misfits` are those that keep it from merging."""
    return (*(error.what for error in misfits), *_differences(base, other))


def misfits(base: Checkpoint, other: Checkpoint) -> list[UserError]:
    return list(mismatches(base, other, other.source, []))


def _differences(base: Passport, other: Passport) -> Iterator[str]:
    main, theirs = (p.dtypes[0][0] if p.dtypes else "nothing" for p in (base, other))
    if main != theirs:
        yield f"stored as {theirs}, the base as {main}"
    if base.tied != other.tied:
        yield "ties its embeddings, the base does not" if other.tied else "does not tie its embeddings, the base does"
    if None not in (base.tokenizer, other.tokenizer) and base.tokenizer != other.tokenizer:
        more = f" ({other.tokens} tokens, the base {base.tokens})" if other.tokens != base.tokens else ""
        yield f"another vocabulary{more}"
    if base.template != other.template:
        told = "has no chat template" if not other.template else "has a chat template, the base none"
        yield "another chat template" if base.template and other.template else told
    ends = [set(p.eos_generation or p.eos) for p in (base, other)]
    if all(ends) and ends[0] != ends[1]:
        yield f"ends at token {_listed(ends[1])}, the base at {_listed(ends[0])}"


def _listed(ids: set[int]) -> str:
    return " or ".join(map(str, sorted(ids)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _stored(part: Checkpoint) -> Checkpoint:
    """The checkpoint that holds the tensors of its folder."""
    return part.file if isinstance(part, AdapterCheckpoint) else part


def _file(model: Checkpoint, name: str) -> Path | None:
    """The model's own file, else that of the base below an adapter."""
    return next((path for folder in model.folders if (path := _own_file(folder, name))), None)


def _own_file(folder: Path, name: str) -> Path | None:
    try:
        return regular_file(folder, name)
    except (ValueError, OSError):
        return None


def _json(model: Checkpoint, name: str, limit: int = CARD_LIMIT) -> dict[str, Any]:
    path = _file(model, name)
    try:
        value = read_json(path, limit) if path else {}
    except (ValueError, OSError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(path: Path | None) -> str:
    try:
        return path.read_text("utf-8") if path and path.stat().st_size <= CARD_LIMIT else ""
    except (ValueError, OSError):
        return ""


def _ids(config: Mapping[str, Any]) -> tuple[int, ...]:
    found = config.get("eos_token_id")
    return tuple(i for i in (found if isinstance(found, list) else [found]) if type(i) is int)


def _token_ids(model: Checkpoint) -> Mapping[str, int]:
    """Token -> id; empty where the files hold none that can be used."""
    try:
        found = read_vocabulary(model)
    except UserError:
        return {}
    return found.ids if found else {}


def template_of(model: Checkpoint) -> str:
    """The chat template that the model's files hold; empty where they hold none."""
    if text := _text(_file(model, TEMPLATE)):
        return text
    found = _json(model, "tokenizer_config.json", TOKENIZER_LIMIT).get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def licence_of(model: Checkpoint) -> str:
    """The Hub's id of the strictest licence that its card names, and below an adapter its base's; or "unknown"."""
    cards = [text for folder in model.folders if (text := _text(_own_file(folder, "README.md")))]
    found = [licence(name) for text in cards for name in _named_licences(text)]
    return max(found or [licence(None)], key=lambda one: one.level).id


def _named_licences(card: str) -> list[str | None]:
    """`license` of a card's front matter, or `license_name` where that says "other"."""
    parts = card.split("---\n", 2)
    try:
        front = (*read_yaml(parts[1]), {})[0] if len(parts) == 3 and not parts[0].strip() else {}
    except UserError:
        front = {}
    found = front.get("license") if isinstance(front, dict) else None
    if found == "other":
        found = front.get("license_name") or found
    names = found if isinstance(found, list) else [found]
    return [name if isinstance(name, str) else None for name in names or [None]]


def _adapter(model: AdapterCheckpoint) -> Adapter:
    config = _json(model, ADAPTER_CONFIG)
    targets = config.get("target_modules")
    kind = "DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA"
    base = str(config.get("base_model_name_or_path") or "")
    return Adapter(
        base=Path(base).name if base.startswith((".", "/", "~")) else base[:120],
        rank=int(config.get("r", 8)),  # PEFT's defaults
        alpha=float(config.get("lora_alpha", 8)),
        kind=kind,
        targets=tuple(map(str, targets))[:40] if isinstance(targets, list) else (str(targets),) if targets else (),
        parameters=sum(prod(info.shape) for info in model.file.tensors.values()),
    )
