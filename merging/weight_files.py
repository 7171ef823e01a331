"""The safetensors files of a model's folder and what lies where in them: one file, or shards with an index."""

import re
from collections.abc import Mapping
from pathlib import Path

from merging.errors import UserError
from merging.hub_cache import INDEX_LIMIT
from merging.model_files import ADAPTER, INDEX, SINGLE
from merging.safetensors_header import Entry, read_header
from merging.sources import regular_file
from merging.strict_json import read_json
from merging.words import reason, shown, some

SHARD = re.compile(r"\w[\w.-]*\.safetensors")
Places = dict[str, tuple[Path, Entry]]


def find_weights(home: Path, source: str, problems: list[UserError], sizes: Mapping[str, int] | None = None) -> Places:
    """Every tensor's file and place there, in file order. What is wrong is added to `problems`.

    `sizes` are those of the whole files, where the folder holds only their headers.
    """
    sizes = sizes or {}
    names = {path.name for path in home.iterdir()}
    if SINGLE in names and INDEX in names:
        problems.append(UserError("E_INDEX", f"there are both {SINGLE} and {INDEX}, so it is unclear which is meant.",
                                  where=source, do="Remove the one that does not belong to this model."))  # fmt: skip
    elif SINGLE in names:
        return _shard(home, SINGLE, source, problems, sizes)
    elif INDEX in names:
        return _sharded(home, source, names, problems, sizes)
    else:
        problems.append(no_weights(names, source))
    return {}


def find_adapter_weights(
    home: Path, source: str, problems: list[UserError], sizes: Mapping[str, int] | None = None
) -> Places:
    """The same of an adapter's folder, which holds one file."""
    names = {path.name for path in home.iterdir()}
    if ADAPTER in names:
        return _shard(home, ADAPTER, source, problems, sizes or {})
    if "adapter_model.bin" in names:
        problems.append(_pickle(source))
    else:
        problems.append(UserError("E_NO_WEIGHTS", f"there is no {ADAPTER}.", where=source,
                                  do="Give the folder that holds it beside adapter_config.json."))  # fmt: skip
    return {}


def unreadable(code: str, where: str, error: ValueError | OSError) -> UserError:
    return UserError(code, f"{reason(error)}.", where=where)


def _shard(home: Path, file: str, source: str, problems: list[UserError], sizes: Mapping[str, int]) -> Places:
    where = f"{source}/{shown(file)[1:-1]}"
    try:
        path = regular_file(home, file)
        if path is None:
            raise ValueError("the index names this file, but it is not there")
        return {name: (path, entry) for name, entry in read_header(path, where, sizes.get(file)).items()}
    except UserError as problem:
        problems.append(problem)
    except (ValueError, OSError) as error:
        problems.append(unreadable("E_WEIGHTS", where, error))
    return {}


def _sharded(home: Path, source: str, names: set[str], problems: list[UserError], sizes: Mapping[str, int]) -> Places:
    where = f"{source}/{INDEX}"
    listed = weight_map(home, where, problems)
    files = sorted(set(listed.values()))
    outside = [file for file in files if not SHARD.fullmatch(file)]
    unlisted = sorted(name for name in names if re.fullmatch(r"model-.*\.safetensors", name) and name not in files)
    places: Places = {}
    holders: dict[str, list[str]] = {}
    before = len(problems)
    for file in files:
        if file not in outside:
            found = _shard(home, file, source, problems, sizes)
            places |= found
            for name in found:
                holders.setdefault(name, []).append(file)
    problems += [
        UserError("E_INDEX", f"{what}: {some(wrong)}.", where=where, do=do)
        for what, wrong, do in (
            ("it names what is not a safetensors file of this folder", outside, "Download the model again."),
            ("it does not name these files", unlisted if listed else [], "Remove what is not part of this model."),
            *(_conflicts(listed, holders) if len(problems) == before and not outside else ()),
        )
        if wrong
    ]
    return places


def _conflicts(listed: Mapping[str, str], holders: Mapping[str, list[str]]) -> list[tuple[str, list[str], str]]:
    """Where index and shards disagree; only told when every shard could be read."""
    again = "Download the model again."
    astray = [name for name in sorted(listed) if len(holders.get(name, ())) == 1 and holders[name] != [listed[name]]]
    return [
        ("these tensors are in two files", [name for name in holders if len(holders[name]) > 1], again),
        ("it lists tensors that no file holds", sorted(listed.keys() - holders.keys()), again),
        ("it does not list these tensors of its files", sorted(holders.keys() - listed.keys()), again),
        ("these tensors lie in another file than it says", astray, again),
    ]


def weight_map(home: Path, where: str, problems: list[UserError]) -> dict[str, str]:
    try:
        path = regular_file(home, INDEX)
        index = read_json(path, INDEX_LIMIT) if path else None
    except (ValueError, OSError) as error:
        problems.append(unreadable("E_INDEX", where, error))
        return {}
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(listed, dict) and listed and all(isinstance(file, str) for file in listed.values()):
        return listed
    problems.append(UserError("E_INDEX", "the file has no weight_map of tensor names to file names.", where=where))
    return {}


def no_weights(names: set[str], source: str) -> UserError:
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        return _pickle(source)
    if any(name.endswith(".gguf") for name in names):
        return UserError("E_QUANTISED", "the weights are GGUF files, made for llama.cpp and mostly quantised.",
                         where=source, do="Use the safetensors model that they were made from.")  # fmt: skip
    if any(re.fullmatch(r"model-.*\.safetensors", name) for name in names):
        return UserError("E_INDEX", f"there are shards but no {INDEX}.", where=source, do="Download the model again.")
    return UserError("E_NO_WEIGHTS", f"there is no {SINGLE} and no {INDEX}.", where=source,
                     do="Give the folder that holds config.json and the weights.")  # fmt: skip


def _pickle(source: str) -> UserError:
    what = "the weights are a Python pickle (.bin or .pt), which can run code and is never opened."
    do = "Use a safetensors copy of the model, or convert it where you trust it."
    return UserError("E_PICKLE_REFUSED", what, where=source, do=do)
