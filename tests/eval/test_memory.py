"""What models take together, by hand, and that equal tensors lie in memory once."""

from pathlib import Path

import pytest
import torch

from eval.running.memory import in_memory, n_bytes
from eval.running.models import Models
from merging.device import divide
from merging.models import open_model
from tests.pico import make_family, write_adapter

GB = 10**9


def shapes_of(layers: int, hidden: int, middle: int, narrow: int, vocab: int, *, tied: bool, bias: bool) -> dict:
    """Llama's tensors; `narrow` is the width of keys and values."""
    kinds = {
        "q_proj": (hidden, hidden), "k_proj": (narrow, hidden), "v_proj": (narrow, hidden), "o_proj": (hidden, hidden),
        "gate_proj": (middle, hidden), "up_proj": (middle, hidden), "down_proj": (hidden, middle),
        "norm1": (hidden,), "norm2": (hidden,),
    }  # fmt: skip
    if bias:
        kinds |= {"q_bias": (hidden,), "k_bias": (narrow,), "v_bias": (narrow,)}
    found = {f"layers.{layer}.{kind}": shape for layer in range(layers) for kind, shape in kinds.items()}
    found |= {"embed": (vocab, hidden), "norm": (hidden,)}
    return found if tied else found | {"lm_head": (vocab, hidden)}


def tenth(shapes: dict) -> dict[str, int]:
    """Three experts at k = 10 % of each layer's matrices."""
    return {name: 3 * (min(shape) // 10) for name, shape in shapes.items() if name.endswith("proj")}


def test_half_a_billion_parameters_and_three_experts_fit_into_24_gb():
    """Qwen2.5-0.5B: 151,936 x 896 once, and 24 layers of 14,912,384; in float32 on the CPU."""
    shapes = shapes_of(24, 896, 4864, 128, 151_936, tied=True, bias=True)
    base = n_bytes(shapes, 4)
    assert base == 4 * 494_032_768
    # q and o (1792 + 1) x 267, k and v (1024 + 1) x 36, the others (5760 + 1) x 267; the layer's vectors are 2,944
    layer = 2 * 1793 * 267 + 2 * 1025 * 36 + 3 * 5761 * 267 + 2_944
    folds = n_bytes(shapes, 4, ranks=tenth(shapes))
    assert folds == 4 * (24 * layer + 151_936 * 896 + 896)
    assert 4 * base + max(base, folds) == 9_880_655_360 < divide(24 * GB).chat


def test_eight_billion_parameters_chat_on_one_gpu_of_80_gb():
    """Llama-3-8B: 128,256 x 4096 twice, and 32 layers of 218,112,000; in bfloat16."""
    shapes = shapes_of(32, 4096, 14_336, 1024, 128_256, tied=False, bias=False)
    base = n_bytes(shapes, 2)
    assert base == 2 * 8_030_261_248
    # q and o (8192 + 1) x 1227, k and v (5120 + 1) x 306, the others (18,432 + 1) x 1227; norms 8,192
    layer = 2 * 8193 * 1227 + 2 * 5121 * 306 + 3 * 18_433 * 1227 + 8_192
    folds = n_bytes(shapes, 2, ranks=tenth(shapes))
    assert folds == 2 * (32 * layer + 2 * 128_256 * 4096 + 4096) == 7_931_737_792
    assert 4 * base + folds < 80 * GB < 5 * base  # all together only with the merge as folds
    assert 3 * base < divide(80 * GB).chat < 4 * base  # so three at a time, the others after them


def test_a_tensor_that_is_the_bases_own_takes_nothing():
    shapes = {"a": (10, 20), "b": (30,), "c": (5, 5)}
    assert n_bytes(shapes, 2) == 2 * 255
    assert n_bytes(shapes, 2, shared=["a"]) == 2 * 55
    assert n_bytes(shapes, 4, shared=["b"], ranks={"a": 3}) == 4 * (3 * 31 + 25)


def test_memory_that_is_shared_counts_once():
    one = torch.zeros(100)
    assert in_memory([one, one[:50], one.detach(), torch.zeros(10)]) == 440


@pytest.fixture
def family(tmp_path: Path) -> dict[str, Path]:
    return make_family(tmp_path, 1, tokenizer=True, tied=True, dtype=torch.float32)


def opened(source: Path | str):
    return open_model(str(source), Path())


def test_an_adapter_takes_only_what_it_changes(family: dict[str, Path], tmp_path: Path):
    adapter = write_adapter(tmp_path / "lora", {"model.layers.0.self_attn.q_proj": (32, 32)})
    base, lora = opened(family["base"]), opened(f"{family['base']}+{adapter}")
    models = Models("cpu")
    whole = models.room.need([base])
    assert models.room.need([base, lora]) == whole + 4 * 32 * 32
    assert models.room.need([lora]) == whole
    found = models.load({"lora": lora, "base": base})
    assert list(found) == ["lora", "base"]
    tensors = [tensor for model in found.values() for tensor in model.tensors()]
    assert in_memory(tensors) == whole + 4 * 32 * 32
    head = found["lora"].module.lm_head.weight
    assert head.data_ptr() == found["base"].module.model.embed_tokens.weight.data_ptr()


def test_tensors_that_training_left_alone_are_the_bases(family: dict[str, Path]):
    from safetensors.torch import load_file, save_file

    path = family["helpful"] / "model.safetensors"
    embedding = load_file(family["base"] / "model.safetensors")["model.embed_tokens.weight"]
    save_file(load_file(path) | {"model.embed_tokens.weight": embedding}, path, {"format": "pt"})
    models = Models("cpu")
    base, helpful = models.model(opened(family["base"])), models.model(opened(family["helpful"]))
    once = models.room.need([opened(family["base"])])
    assert in_memory([*base.tensors(), *helpful.tensors()]) == 2 * once - 4 * 96 * 32
    assert helpful.module.lm_head.weight is helpful.module.model.embed_tokens.weight


def test_memory_is_full_only_of_what_is_there_once(family: dict[str, Path], tmp_path: Path):
    """A base, its adapter and an expert fit where two models do."""
    base, helpful = opened(family["base"]), opened(family["helpful"])
    adapter = write_adapter(tmp_path / "lora", {"model.layers.0.self_attn.q_proj": (32, 32)})
    lora = opened(f"{family['base']}+{adapter}")
    once = Models("cpu").room.need([base])
    models = Models("cpu", 2 * once + 4 * 32 * 32)
    first, second = models.model(base), models.model(lora)
    assert models.model(helpful) is models.model(helpful)
    assert models.model(base) is first
    assert models.model(lora) is second
