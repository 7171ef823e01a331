"""The config.json of a merge: the base's, with the output's dtype and, of slices, what it says of single layers."""

from collections.abc import Mapping, Sequence
from typing import Any

COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "attention_layers")  # one a layer
INDICES = ("mlp_only_layers", "moe_layers", "cross_attention_layers")  # numbers of the layers that are special
LEADING = ("max_window_layers", "first_k_dense_replace")  # how many of the first layers are special

Layers = Sequence[tuple[Mapping[str, Any], int]]  # for each layer of the merge a config, and which layer of it


def merged_config(base: Mapping[str, Any], dtype: str | None, layers: Layers) -> dict[str, Any]:
    """The base's config without its own code, in `dtype` if given, for these layers if there are any."""
    config = {key: value for key, value in base.items() if key != "auto_map"}
    if dtype:
        named = [key for key in ("dtype", "torch_dtype") if key in config]
        config |= dict.fromkeys(named or ["torch_dtype"], dtype)
    return sliced_config(config, layers) if layers else config


def sliced_config(base: Mapping[str, Any], layers: Layers) -> dict[str, Any]:
    config = dict(base)
    for key in COUNTS:
        if key in config:
            config[key] = len(layers)
    for key in PER_LAYER:
        if isinstance(config.get(key), list):
            config[key] = [_item(source.get(key), layer) for source, layer in layers]
    for key in INDICES:
        if isinstance(config.get(key), list):
            config[key] = [i for i, (source, layer) in enumerate(layers) if layer in (source.get(key) or ())]
    for key in LEADING:
        if isinstance(config.get(key), int):
            config[key] = sum(_leads(source, key, layer) for source, layer in layers)
    if isinstance(config.get("text_config"), dict):
        below = [(source.get("text_config") or {}, layer) for source, layer in layers]
        config["text_config"] = sliced_config(config["text_config"], below)
    return config


def mixed_layers(base: Mapping[str, Any], layers: Layers) -> list[str]:
    """Fields that say which first layers are special, where the slices put such layers behind others."""
    mixed = []
    for key in LEADING:
        means = key != "max_window_layers" or base.get("use_sliding_window")
        special = [_leads(source, key, layer) for source, layer in layers]
        if isinstance(base.get(key), int) and means and special != sorted(special, reverse=True):
            mixed.append(key)
    return mixed


def _leads(config: Mapping[str, Any], key: str, layer: int) -> bool:
    value = config.get(key)
    return isinstance(value, int) and layer < value


def _item(value: Any, layer: int) -> Any:
    return value[layer] if isinstance(value, list) and layer < len(value) else None
