"""What a LoRA adapter's adapter_config.json says: its scales, its base, and what of PEFT's LoRA is not merged here."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.errors import UserError
from merging.hub_cache import HUB_ID
from merging.model_files import ADAPTER_CONFIG
from merging.sources import regular_file
from merging.strict_json import read_json
from merging.weight_files import unreadable
from merging.words import shown

MAX_PATTERNS, MAX_PATTERN = 4096, 256
READ = {
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "ensure_weight_tying",
    "trainable_token_indices", "init_lora_weights", "base_model_name_or_path", "revision",
}  # fmt: skip
# Settings of the training, and what the adapter's tensors say themselves.
NO_MATTER = {
    "task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout", "target_modules", "exclude_modules",
    "fan_in_fan_out", "bias", "lora_bias", "modules_to_save", "layers_to_transform", "layers_pattern", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "megatron_core", "runtime_config", "qalora_group_size",
    "merge_weights",
}  # fmt: skip
FRESH = ("gaussian", "eva", "orthogonal", "mica")  # ways to begin that leave the base's weights alone
WHY = {
    "target_parameters": "it adapts fused parameters (target_parameters), whose layout only the model's code knows.",
    "layer_replication": "it repeats layers of its base (layer_replication).",
    "alora_invocation_tokens": "it acts only after certain tokens (alora_invocation_tokens), which no weight can say.",
}
Scale = tuple[int, float]  # rank, and what multiplies B A


@dataclass(frozen=True)
class AdapterConfig:
    base: str | None  # the model it was trained from, as its trainer named it
    dora: bool
    tied: bool
    tokens: tuple[int, ...] | dict[str, tuple[int, ...]]
    scale: Callable[[str], Scale]  # of a module by its dotted name


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).exists() and not (folder / "config.json").exists()


def read_config(folder: Path, source: str, problems: list[UserError]) -> AdapterConfig | None:
    """What the folder's adapter_config.json says; None where it cannot be used, with the reasons in `problems`."""
    where = f"{source}/{ADAPTER_CONFIG}"
    try:
        path = regular_file(folder, ADAPTER_CONFIG)
        config = read_json(path) if path else None
    except (ValueError, OSError) as error:
        problems.append(unreadable("E_ADAPTER", where, error))
        return None
    if path is None:
        what = f"there is no {ADAPTER_CONFIG}, so this is not an adapter."
        problems.append(UserError("E_ADAPTER", what, where=source, do="Write `base+adapter`, the adapter last."))
        return None
    if not isinstance(config, dict):
        problems.append(UserError("E_ADAPTER", "the file is not a JSON object.", where=where))
        return None
    faults = [UserError("E_ADAPTER", what, where=where) for what in _wrong(config)]
    faults = faults or [UserError("E_ADAPTER", what, where=where, do=do) for what, do in _refused(config)]
    problems += faults
    return None if faults else _adapter_config(config)


def _adapter_config(config: Mapping[str, Any]) -> AdapterConfig:
    base, revision = config.get("base_model_name_or_path") or None, config.get("revision")
    if base and revision and HUB_ID.fullmatch(base) and "@" not in base:
        base = f"{base}@{revision}"
    tokens = config.get("trainable_token_indices") or ()
    rows = {key: tuple(listed) for key, listed in tokens.items()} if isinstance(tokens, dict) else tuple(tokens)
    ranks, alphas = (_patterns(config.get(key) or {}) for key in ("rank_pattern", "alpha_pattern"))

    def scale(module: str) -> Scale:
        r = int(_first(ranks, module, config.get("r", 8)))
        alpha = float(_first(alphas, module, config.get("lora_alpha", 8)))
        return r, alpha / (math.sqrt(r) if config.get("use_rslora") else r)

    return AdapterConfig(base, bool(config.get("use_dora")), bool(config.get("ensure_weight_tying")), rows, scale)


def _patterns(table: Mapping[str, float]) -> list[tuple[str, re.Pattern[str], float]]:
    return [(key, re.compile(rf"(.*\.)?({key})$"), value) for key, value in table.items()]


def _first(patterns: list[tuple[str, re.Pattern[str], float]], module: str, default: float) -> float:
    """As PEFT's get_pattern_key: the first key that matches the module's name or the end of it after a dot."""
    return next((value for key, pattern, value in patterns if key == module or pattern.match(module)), default)


def _wrong(config: Mapping[str, Any]) -> Iterator[str]:
    """Fields that do not have the form they must have."""
    if not isinstance(config.get("peft_type"), str):
        yield f"peft_type is {shown(config.get('peft_type'))}; of a LoRA adapter it is LORA."
    for key in ("use_rslora", "use_dora", "ensure_weight_tying"):
        if config.get(key) not in (None, True, False):
            yield f"{key} is {shown(config[key])}; it must be true or false."
    for key in ("base_model_name_or_path", "revision"):
        if not isinstance(config.get(key), str | None):
            yield f"{key} is {shown(config[key])}; it must be a name."
    if not _is_rank(config.get("r", 8)):
        yield f"r is {shown(config['r'])}; it must be a positive whole number."
    if not _is_alpha(config.get("lora_alpha", 8)):
        yield f"lora_alpha is {shown(config['lora_alpha'])}; it must be a number."
    for key, fits, needed in (
        ("rank_pattern", _is_rank, "positive whole numbers"),
        ("alpha_pattern", _is_alpha, "numbers"),
    ):
        table = config.get(key) or {}
        if not isinstance(table, dict) or len(table) > MAX_PATTERNS or not all(map(fits, table.values())):
            yield f"{key} must give {needed} by module, {MAX_PATTERNS:,} at most."
        else:
            yield from (
                f"{key} has the pattern {shown(k)}, which is not used: {w}." for k in table if (w := _unsafe(k))
            )
    tokens = config.get("trainable_token_indices") or []
    lists = list(tokens.values()) if isinstance(tokens, dict) else [tokens]
    if not all(isinstance(rows, list) and all(type(row) is int for row in rows) for rows in lists):
        yield "trainable_token_indices must be a list of token ids, or such a list by layer."


def _refused(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is well-formed and still not merged here, and what to do about it."""
    own = "Merge it into its base with PEFT (merge_and_unload) and give that folder."
    if config["peft_type"] != "LORA":
        yield f"this is an adapter of the kind {shown(config['peft_type'])[1:-1]}, not LoRA.", own
        return
    start = config.get("init_lora_weights", True)
    if not (start is None or isinstance(start, bool) or start in FRESH):
        yield (
            f"it began as {shown(start)}, which changes the base's own weights too (init_lora_weights).",
            "Save it converted to plain LoRA (PEFT's path_initial_model_for_weight_conversion), or merge it with PEFT.",
        )
    for key in sorted(config.keys() - READ - NO_MATTER):
        if config[key]:
            known = WHY.get(key, f"it sets {shown(key)[1:-1]}, which is not merged here.")
            yield known, own


def _is_rank(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 20


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e6  # also refuses 1e999, which JSON reads as infinity


def _unsafe(pattern: str) -> str:
    """Why a regular expression from a stranger could take for ever, or is none; "" for those that are fine."""
    if len(pattern) > MAX_PATTERN:
        return f"it has more than {MAX_PATTERN} characters"
    if re.search(r"\)[*+?{]|\(\?[^:]|\\[1-9]", pattern) or len(re.findall(r"[*+{]", pattern)) > 2:
        return "repeated groups, look-arounds and more than two repetitions are left out"
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError):
        return "it is no regular expression"
    return ""
