"""Pico Llama checkpoints made on the fly: a base and experts a few steps away from it. Needs torch only."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from merging.model_files import INDEX, SINGLE

HIDDEN, MIDDLE, VOCAB, HEADS, KV_HEADS = 32, 64, 96, 4, 2
NAMES = ("helpful", "honest", "harmless", "curt", "kind", "dry")


def make_family(folder: Path, experts: int = 3, *, layers: int = 2, dtype: torch.dtype = torch.bfloat16,
                tied: bool = False, shards: int = 1, tokenizer: bool = False,
                seed: int = 0) -> dict[str, Path]:  # fmt: skip
    """Write base and experts below `folder`; returns their folders by name, the base first."""
    base = weights(seed, layers, tied)
    models = {"base": base}
    for i, name in enumerate(NAMES[:experts], 1):
        random = torch.Generator().manual_seed(seed + i)
        models[name] = {key: value + delta(value, random) for key, value in base.items()}
    for name, tensors in models.items():
        stored = {key: value.to(dtype) for key, value in tensors.items()}
        write_model(folder / name, stored, config(layers, dtype, tied), shards)
        if tokenizer:
            write_tokenizer(folder / name)
    return {name: folder / name for name in models}


def shapes(layers: int, tied: bool) -> dict[str, tuple[int, ...]]:
    wide, narrow = (HIDDEN, HIDDEN), (HIDDEN // HEADS * KV_HEADS, HIDDEN)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(layers):
        parts = {"self_attn.q_proj": wide, "self_attn.k_proj": narrow, "self_attn.v_proj": narrow,
                 "self_attn.o_proj": wide, "mlp.gate_proj": (MIDDLE, HIDDEN), "mlp.up_proj": (MIDDLE, HIDDEN),
                 "mlp.down_proj": (HIDDEN, MIDDLE), "input_layernorm": (HIDDEN,),
                 "post_attention_layernorm": (HIDDEN,)}  # fmt: skip
        found |= {f"model.layers.{i}.{part}.weight": shape for part, shape in parts.items()}
    found["model.norm.weight"] = (HIDDEN,)
    return found if tied else found | {"lm_head.weight": (VOCAB, HIDDEN)}


def weights(seed: int, layers: int, tied: bool) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=random) * 0.1 if len(shape) > 1 else torch.ones(shape)
            for name, shape in shapes(layers, tied).items()}  # fmt: skip


def delta(weight: Tensor, random: torch.Generator) -> Tensor:
    """A step as fine-tuning leaves it: low rank, a little noise, a few large entries."""
    noise = torch.randn(weight.shape, generator=random) * 0.002
    if weight.ndim < 2:
        return noise
    rows, columns = weight.shape
    low_rank = torch.randn(rows, 3, generator=random) @ torch.randn(3, columns, generator=random) * 0.01
    large = (torch.rand(weight.shape, generator=random) < 0.01) * 0.1
    return low_rank + noise + large


def config(layers: int, dtype: torch.dtype, tied: bool) -> dict:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
            "intermediate_size": MIDDLE, "num_hidden_layers": layers, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB, "max_position_embeddings": 64, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2,
            "torch_dtype": str(dtype).removeprefix("torch.")}  # fmt: skip


def write_model(folder: Path, tensors: dict[str, Tensor], config: dict, shards: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / SINGLE, {"format": "pt"})
        return
    parts = [names[i * len(names) // shards : (i + 1) * len(names) // shards] for i in range(shards)]
    files = [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    size = sum(tensor.nbytes for tensor in tensors.values())
    weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))


def write_adapter(folder: Path, modules: dict[str, tuple[int, int]], r: int = 4, alpha: float = 8.0) -> Path:
    """A LoRA adapter in PEFT's form for these modules (out, in), with random A and B."""
    random = torch.Generator().manual_seed(len(modules))
    tensors = {}
    for module, (out, inputs) in modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(r, inputs, generator=random) * 0.1
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, r, generator=random) * 0.1
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": r, "lora_alpha": alpha}))
    return folder


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer of VOCAB words, with a chat template."""
    vocab = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(4, VOCAB))])}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
                 "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}}  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                "pad_token": "<pad>", "unk_token": "<unk>"}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")
