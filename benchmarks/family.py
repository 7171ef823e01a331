"""A synthetic family of Llama-shaped checkpoints that behaves like fine-tuned ones: base and three experts, bfloat16.

An expert's delta is a power-law low-rank part (35 % of its variance in directions that all experts share), dense noise,
four hot rows and one heavy entry in a thousand; base plus delta is rounded to bfloat16, as real checkpoints are.
"""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

EXPERTS = ("expert0", "expert1", "expert2")
SIZES = {  # hidden, intermediate, layers, vocabulary, heads, key-value heads
    "tiny": (320, 864, 8, 8000, 5, 5),  # 15 M
    "small": (768, 2048, 12, 32000, 12, 12),  # 134 M
    "mid": (1024, 4096, 24, 32000, 16, 8),  # 443 M
    "large": (2048, 5632, 22, 32000, 32, 4),  # 1.2 B
    "8b": (4096, 14336, 32, 128256, 32, 8),  # 8.0 B
    "layer8b": (4096, 14336, 1, 4000, 32, 8),  # a layer of 8 B, cut to one matrix of each shape; no model to chat with
}
TOWN = Path(__file__).resolve().parents[1] / "assets" / "town" / "base"
SPEECH = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
ONE_EACH = ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj", "input_layernorm")
SHARD_BYTES = 256 << 20
RMS = 6e-4  # root mean square of a matrix's delta
SHARED = 0.35


def make_family(size: str, folder: Path) -> Path:
    """Write the family below `folder` unless it is there; returns its own folder."""
    home = folder / size
    if (home / "complete").exists():
        return home
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    room = SHARD_BYTES
    for name, shape in _shapes(size):
        room -= 2 * math.prod(shape)
        if room < 0 and shards[-1]:
            shards.append([])
            room = SHARD_BYTES - 2 * math.prod(shape)
        shards[-1].append((name, shape))
    files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for model in ("base", *EXPERTS):
        (home / model).mkdir(parents=True, exist_ok=True)
        (home / model / "config.json").write_text(json.dumps(_config(size)))
        where = {name: file for file, shard in zip(files, shards, strict=True) for name, _ in shard}
        total = sum(2 * math.prod(shape) for shard in shards for _, shape in shard)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (home / model / "model.safetensors.index.json").write_text(json.dumps(index))
    for number, (file, shard) in enumerate(zip(files, shards, strict=True)):
        parts: dict[str, dict[str, Tensor]] = {model: {} for model in ("base", *EXPERTS)}
        for place, (name, shape) in enumerate(shard):
            for model, tensor in _tensors(shape, (number * 1000 + place) * 64):
                parts[model][name] = tensor
        for model, tensors in parts.items():
            save_file(tensors, home / model / file, {"format": "pt"})
    (home / "complete").touch()
    return home


def make_speaking(size: str, folder: Path) -> Path:
    """The family with Town's tokenizer, which the smallest vocabulary here has room for; returns its own folder."""
    home = make_family(size, folder)
    for model in ("base", *EXPERTS):
        for file in SPEECH:
            shutil.copy(TOWN / file, home / model)
    return home


def make_hollow(size: str, folder: Path) -> Path:
    """The family's headers below `folder`, over files that are nothing but holes; returns its own folder."""
    header, at = {}, 0
    for name, shape in _shapes(size):
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at := at + 2 * math.prod(shape)]}
    told = json.dumps(header).encode()
    for number, model in enumerate(("base", *EXPERTS)):
        own = folder / size / model
        own.mkdir(parents=True, exist_ok=True)
        (own / "config.json").write_text(json.dumps(_config(size)))
        with (own / "model.safetensors").open("wb") as file:
            file.write(len(told).to_bytes(8, "little") + told + bytes([number]))  # else all would be one model
            file.truncate(8 + len(told) + at)
    return folder / size


def _tensors(shape: tuple[int, ...], key: int) -> Iterator[tuple[str, Tensor]]:
    random = Generator().manual_seed(key)
    base = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=random) * 0.6 / shape[1] ** 0.5
    base = base.bfloat16()
    yield "base", base
    for t, expert in enumerate(EXPERTS, 1):
        own, shared = Generator().manual_seed(key + t), Generator().manual_seed(key + 63)
        yield expert, (base.float() + _delta(shape, own, shared)).bfloat16()


def _delta(shape: tuple[int, ...], own: Generator, shared: Generator) -> Tensor:
    if len(shape) == 1:
        return 0.005 * torch.randn(shape, generator=own)
    m, n = shape
    r = max(4, min(m, n) // 24)
    strength = torch.arange(1, r + 1).float() ** -0.6
    u, v = torch.randn(m, r, generator=own), torch.randn(r, n, generator=own)
    u = (1 - SHARED) ** 0.5 * u + SHARED**0.5 * torch.randn(m, r, generator=shared)
    v = (1 - SHARED) ** 0.5 * v + SHARED**0.5 * torch.randn(r, n, generator=shared)
    low = (u * strength) @ v
    noise = torch.randn(m, n, generator=own) * (0.55 * RMS)
    noise.view(-1)[torch.randint(0, m * n, (max(1, m * n // 1000),), generator=own)] *= 6
    noise[torch.randint(0, m, (4,), generator=own)] *= 3
    return noise + low * (0.8 * RMS / low.std())


def _shapes(size: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, middle, layers, vocab, heads, kv_heads = SIZES[size]
    narrow = hidden // heads * kv_heads
    parts = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden), "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (middle, hidden), "mlp.up_proj": (middle, hidden), "mlp.down_proj": (hidden, middle),
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    if size == "layer8b":
        parts = {part: parts[part] for part in ONE_EACH}
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(layers):
        yield from ((f"model.layers.{layer}.{part}.weight", shape) for part, shape in parts.items())
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def _config(size: str) -> dict:
    hidden, middle, layers, vocab, heads, kv_heads = SIZES[size]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": middle, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocab, "max_position_embeddings": 2048, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
