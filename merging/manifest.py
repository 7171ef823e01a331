"""What an export says of itself in mergescope.json, and checking a folder against it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from platform import python_version
from typing import Any, Literal

from merging.checkpoint import FLOATS, Checkpoint
from merging.companions import RECIPE, short_names, tokenizer_model
from merging.errors import UserError, all_of
from merging.hub_cache import INDEX_LIMIT
from merging.model_files import INDEX
from merging.partial import JOURNAL, JOURNAL_LIMIT, sha256_of
from merging.plan import Plan, make_plan
from merging.recipe import load_recipe, parse_recipe
from merging.safetensors_header import read_header
from merging.sources import regular_file
from merging.stage import leaves
from merging.strict_json import read_json
from merging.words import reason, shown, some

VERSION = "0.1.0"  # of Mergescope
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
_HASH = re.compile(r"[0-9a-f]{64}")
AtHand = Literal["same", "other", "none"]


@dataclass(frozen=True)
class Verified:
    """Every file is as it was written. `sources`: whether the recipe's digest was computed again from its models."""

    folder: str
    n_files: int
    n_bytes: int
    digest: str
    sources: AtHand


def facts_of(plan: Plan) -> dict[str, Any]:
    """What an export is of; the journal starts with it, and only the same export may be resumed."""
    sources = [
        {"model": name, "commit": model.commit, "fingerprint": model.fingerprint}
        for name, model in source_models(plan).items()
    ]
    merged = sum(prod(tensor.shape) for tensor in plan.tensors if tensor.dtype.is_floating_point)
    return {
        "made_by": "Mergescope", "version": VERSION, "digest": plan.digest,
        "method": f"{plan.method.id} {plan.method.version}", "sources": sources,
        "parameters": {"base": n_parameters(plan.base), "merge": merged},
        "libraries": {"python": python_version()} | {name: version(name) for name in ("torch", "numpy")},
    }  # fmt: skip


def source_models(plan: Plan) -> dict[str, Checkpoint]:
    """The models that a merge is made from, by the names they have where no absolute path may stand; the base first."""
    models = {model.source: model for model in leaves(*plan.models, tokenizer_model(plan))}
    return {name: models[source] for source, name in short_names(plan.recipe).items() if source in models}


def n_parameters(model: Checkpoint) -> int:
    return sum(prod(info.shape) for info in model.tensors.values() if info.dtype in FLOATS)


def verify(out: Path) -> Verified:
    """Check every file of an export against its manifest; raises one UserError that lists every problem."""
    manifest = read_manifest(out)
    entries = manifest["files"] | manifest["shards"]
    problems = [problem for name, entry in entries.items() for problem in _file_problems(out, name, entry)]
    broken = {problem.where for problem in problems}
    extra = sorted(path.name for path in out.iterdir() if path.suffix in _WEIGHTS and path.name not in entries)
    problems += [_problem(out, name, "this weight file is no part of the export.") for name in extra]
    for name, entry in manifest["shards"].items():
        if f"{out.name}/{name}" not in broken and list(_tensors_in(out, name)) != sorted(entry["tensors"]):
            problems.append(_problem(out, name, "its header lists other tensors than the manifest."))
    if f"{out.name}/{INDEX}" not in broken:
        problems += _index_problems(out, manifest)
    plan, at_hand = plan_of(out, manifest["digest"])
    recorded = [source.get("fingerprint") for source in manifest["sources"] if isinstance(source, dict)]
    if at_hand == "other" and plan and {c.fingerprint for c in leaves(*plan.models)} <= set(recorded):
        problems.append(_problem(out, RECIPE, "with the sources at hand it gives another digest than the manifest's."))
    if problems:
        raise all_of(problems, kept="Nothing was changed.")
    size = sum(entry["bytes"] for entry in entries.values())
    return Verified(str(out), len(entries), size, manifest["digest"], at_hand)


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest, in its form: `shards` and `files` by name, `sources`, `digest`. Raises UserError."""
    try:
        if not out.is_dir():
            raise ValueError("there is no such folder")
        path = regular_file(out, JOURNAL)
        found = read_json(path, JOURNAL_LIMIT) if path else None
        if path is None:
            raise ValueError(f"there is no {JOURNAL}, so this is no export of Mergescope's")
        return _formed(found)
    except (ValueError, OSError) as error:
        raise UserError("E_MANIFEST", f"{reason(error)}.", where=shown(str(out), 200)[1:-1],
                        kept="Nothing was changed.", do="Give the folder of a finished merge.") from error  # fmt: skip


def plan_of(out: Path, digest: str) -> tuple[Plan | None, AtHand]:
    """The plan of an export's own recipe, its models looked for here and beside the export.

    "other": they were found, but a model, the recipe or the method changed since, so that the digest differs.
    """
    other = None
    for folder in (Path.cwd(), out.resolve().parent):
        try:
            recipe = load_recipe(out / RECIPE)
            plan = make_plan(parse_recipe(recipe.to_yaml(), folder))
        except UserError:
            continue
        if plan.digest == digest:
            return plan, "same"
        other = plan
    return other, "other" if other else "none"


def _formed(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict) or found.get("made_by") != "Mergescope":
        raise ValueError(f"{JOURNAL} is not one of Mergescope's")
    if not all(isinstance(found.get(key), dict) for key in ("shards", "files")) or not found["shards"]:
        raise ValueError(f"{JOURNAL} lists no files; it was written by an older version or is damaged")
    if not isinstance(found.get("digest"), str) or not isinstance(found.get("sources"), list):
        raise ValueError(f"{JOURNAL} names no digest or no sources")
    for kind in ("shards", "files"):
        for name, entry in found[kind].items():
            sound = isinstance(entry, dict) and type(entry.get("bytes")) is int and entry["bytes"] >= 0
            sound = sound and isinstance(entry.get("sha256"), str) and _HASH.fullmatch(entry["sha256"])
            names = entry.get("tensors") if sound else None
            listed = isinstance(names, list) and all(isinstance(tensor, str) for tensor in names)
            if not sound or (kind == "shards" and not listed):
                raise ValueError(f"{JOURNAL} has no size, sha256 or tensors for {shown(name)}")
    return found


def _file_problems(out: Path, name: str, entry: dict[str, Any]) -> Iterator[UserError]:
    try:
        path = regular_file(out, name)
        if path is None:
            yield _problem(out, name, "the file is missing.")
        elif path.stat().st_size != entry["bytes"]:
            yield _problem(out, name, f"has {path.stat().st_size:,} bytes; {entry['bytes']:,} were written.")
        elif sha256_of(path) != entry["sha256"]:
            yield _problem(out, name, "its sha256 is not the one that was written.")
    except (ValueError, OSError) as error:
        yield _problem(out, name, f"{reason(error)}.")


def _index_problems(out: Path, manifest: dict[str, Any]) -> Iterator[UserError]:
    wanted = {tensor: name for name, entry in manifest["shards"].items() for tensor in entry["tensors"]}
    try:
        path = regular_file(out, INDEX)
        if path is None:
            if len(manifest["shards"]) > 1 and INDEX not in manifest["files"]:
                yield _problem(out, INDEX, "the file is missing.")
            return
        index = read_json(path, INDEX_LIMIT)
    except (ValueError, OSError) as error:
        yield _problem(out, INDEX, f"{reason(error)}.")
        return
    listed = index.get("weight_map") if isinstance(index, dict) else None
    listed = listed if isinstance(listed, dict) else {}
    differ = sorted(name for name in listed.keys() | wanted.keys() if listed.get(name) != wanted.get(name))
    if differ:
        yield _problem(out, INDEX, f"it disagrees with the shards about {some(differ)}.")


def _tensors_in(out: Path, name: str) -> list[str]:
    try:
        return sorted(read_header(out / name, name))
    except (UserError, OSError):
        return []


def _problem(out: Path, name: str, what: str) -> UserError:
    return UserError("E_VERIFY", what, where=f"{out.name}/{shown(name, 200)[1:-1]}", kept="Nothing was changed.")
