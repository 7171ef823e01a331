"""Whether a model's config.json can be believed and agrees with its weights. Pure: dicts in, sentences out."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from merging.words import shown, some

COUNTS = ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "num_key_value_heads",
          "intermediate_size", "head_dim", "max_position_embeddings")  # fmt: skip
TEXTS = ("model_type", "torch_dtype", "dtype")
LAYER = re.compile(r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h)\.(\d{1,6})\.")
EMBEDDING = re.compile(r"(?:.*\.)?(?:embed_tokens|wte|embed_in)\.weight")
HEAD = re.compile(r"(?:.*\.)?(?:lm_head|embed_out|output|output_layer)\.weight")
SIDES = [  # tensor, side of it, and the field of config.json that says how long this side is
    (re.compile(name), side, key)  # a pattern stays itself
    for name, side, key in (
        (EMBEDDING, 0, "vocab_size"),
        (EMBEDDING, 1, "hidden_size"),
        (r"(?:model\.)?layers\.\d+\.mlp\.(?:gate|up)_proj\.weight", 0, "intermediate_size"),
        (r"(?:model\.)?layers\.\d+\.mlp\.down_proj\.weight", 1, "intermediate_size"),
        (r"(?:model\.)?layers\.\d+\.self_attn\.[kv]_proj\.weight", 0, "num_key_value_heads"),
    )
]


def wrong_fields(config: Mapping[str, Any]) -> Iterator[str]:
    for key in COUNTS:
        value = config.get(key)
        if value is not None and not (type(value) is int and 0 < value < 1 << 40):
            yield f"{key} is {shown(value)}; it must be a positive whole number."
    for key in TEXTS:
        if config.get(key) is not None and not isinstance(config[key], str):
            yield f"{key} is {shown(config[key])}; it must be a name."
    tied = config.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        yield f"tie_word_embeddings is {shown(tied)}; it must be true or false."
    if not config.get("model_type"):
        yield "it names no model_type, so the merge could not be loaded."
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        yield "architectures must be a list of names."


def contradictions(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Where config.json and the weights disagree; asks only about fields that are there and well-formed."""
    wanted = config.get("num_hidden_layers")
    found = {int(match[1]) for name in shapes if (match := LAYER.match(name))}
    if wanted is not None and found:
        spare = config.get("num_nextn_predict_layers")  # layers of DeepSeek's kind that num_hidden_layers leaves out
        most = wanted + (spare if type(spare) is int else 0)
        missing = [str(i) for i in range(min(wanted, max(found) + 1)) if i not in found]
        if missing:
            yield f"the weights lack layer {some(missing)} of {max(found) + 1}."
        if not wanted <= max(found) + 1 <= most:
            yield f"num_hidden_layers is {wanted}, but the weights hold {max(found) + 1} layers."
    width, heads, head = (config.get(key) for key in ("hidden_size", "num_attention_heads", "head_dim"))
    if width and heads and head is None and width % heads:
        yield f"hidden_size {width} does not divide by num_attention_heads {heads}."
        return
    each = {"num_key_value_heads": head or (width // heads if width and heads else 0)}  # rows that one of them takes
    told = set()
    for (name, shape), (pattern, side, key) in product(shapes.items(), SIDES):
        size = (config.get(key) or 0) * each.get(key, 1)
        if size and key not in told and len(shape) == 2 and shape[side] != size and pattern.fullmatch(name):
            told.add(key)
            yield f"{key} is {config[key]}, but {shown(name)[1:-1]} has {shape[side]} {('rows', 'columns')[side]}."
    speaks = any(name.endswith("ForCausalLM") for name in config.get("architectures") or ())
    if speaks and config.get("tie_word_embeddings") is False and not any(map(HEAD.fullmatch, shapes)):
        yield "tie_word_embeddings is false, but the weights hold no lm_head.weight."
