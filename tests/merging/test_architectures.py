"""Any architecture by tensor names: pico models made and loaded again by transformers itself."""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from merging.checkpoint import open_checkpoint
from merging.engine import merge, merged_tensors
from merging.live import LiveMerge
from merging.look import family_of
from merging.plan import Plan, make_plan
from merging.profile import profile
from merging.recipe import parse_recipe
from tests.pico import write_model

SIZE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0}  # fmt: skip
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
MOE = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
USUAL = ("q", "k", "v", "o", "gate", "up", "down")
MIXTURE = ("q", "k", "v", "o", "router", "moe gate", "moe up", "moe down")
MODELS = {  # settings, and the rows of the map
    "llama": (SIZE, USUAL),
    "mistral": (SIZE, USUAL),
    "qwen2": (SIZE | {"tie_word_embeddings": True}, USUAL),
    "qwen3": (SIZE | {"head_dim": 8, "tie_word_embeddings": True}, USUAL),
    "gemma2": (SIZE | {"head_dim": 8}, USUAL),
    "phi3": (SIZE, ("qkv", "o", "gate_up", "down")),
    "gpt_neox": (SIZE, ("qkv", "o", "up", "down")),
    "gpt2": (GPT2, ("qkv", "o", "up", "down")),
    "mixtral": (SIZE | {"num_local_experts": 4}, MIXTURE),
    "qwen3_moe": (SIZE | MOE, MIXTURE),
}
TIED = {"qwen2", "qwen3", "gemma2", "gpt2"}
METHODS = {"linear": 2, "task_arithmetic": 2, "ties": 2, "tsv_m": 2, "slerp": 1}  # and how many experts of the two


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`made(kind)` is a folder with base, one and two, saved by transformers."""

    @cache
    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        for seed, name in enumerate(("base", "one", "two")):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **MODELS[kind][0]))
            torch.manual_seed(seed)
            with torch.no_grad():
                for weight in model.parameters() if seed else ():
                    weight += 0.01 * torch.randn(weight.shape)
            model.save_pretrained(folder / name)
        return folder

    return make


def plan_of(folder: Path, method: str) -> Plan:
    experts = ("one", "two")[: METHODS[method]]
    models = "".join(f"- model: {name}\n  parameters: {{weight: 1.0}}\n" for name in experts)
    more = "parameters: {t: 0.4}\n" if method == "slerp" else ""
    return make_plan(parse_recipe(f"merge_method: {method}\nbase_model: base\nmodels:\n{models}{more}", folder))


@pytest.mark.parametrize("kind", MODELS)
def test_every_method_makes_a_model_that_loads(made, tmp_path, kind):
    folder = made(kind)
    base, one, two = (load_file(folder / name / "model.safetensors") for name in ("base", "one", "two"))
    tokens = torch.tensor([[1, 5, 9, 33]])
    for method in METHODS:
        out = tmp_path / method
        list(merge(plan_of(folder, method), out))
        merged = load_file(out / "model.safetensors")
        assert {name: t.shape for name, t in merged.items()} == {name: t.shape for name, t in base.items()}
        model, told = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
        assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        head = model.get_output_embeddings().weight
        assert (head.data_ptr() == model.get_input_embeddings().weight.data_ptr()) == (kind in TIED)
        assert ("lm_head.weight" in merged or "embed_out.weight" in merged) == (kind not in TIED)
        with torch.no_grad():
            assert torch.isfinite(model(tokens).logits).all()
        if method == "linear":
            for name, tensor in merged.items():
                torch.testing.assert_close(tensor, (one[name] + two[name]) / 2, rtol=1e-6, atol=1e-7)
            parts = [AutoModelForCausalLM.from_pretrained(folder / name).state_dict() for name in ("one", "two")]
            for name, tensor in model.state_dict().items():
                torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2, rtol=1e-6, atol=1e-7)
        else:
            assert any(not torch.equal(merged[name], base[name]) for name in base)


@pytest.mark.parametrize("kind", MODELS)
def test_the_map_has_the_usual_rows(made, kind):
    base = open_checkpoint(str(made(kind) / "base"), Path())
    found = family_of(("one", "two"), base.shapes)
    assert (found.kinds, found.n_layers) == (MODELS[kind][1], 2)
    assert all(found.at(layer, name) for layer in range(2) for name in found.kinds)


@pytest.mark.parametrize("kind", ["gpt2", "phi3", "mixtral"])
def test_the_live_map_is_full_and_a_cell_of_a_mixture_is_its_experts_mean(made, kind):
    plan = plan_of(made(kind), "tsv_m")
    live = LiveMerge(plan.base, plan.experts, ("one", "two"))
    look = next(event.look for event in live.move(plan, None, lambda: False) if hasattr(event, "look"))
    known = {name: conflict.values for name, conflict in look.conflicts.items() if name != "output"}  # not measured
    assert all(abs(values).max() < 10 for values in known.values())  # no NaN among them
    if kind == "mixtral":
        rows = {row.matrix.name: row.pairs[0].cosine for row in profile(plan, ("one", "two"))}
        each = [rows[f"model.layers.1.block_sparse_moe.experts.{e}.w2.weight"] for e in range(4)]
        cell = look.conflicts["cosine"].values[0, look.family.kinds.index("moe down"), 1]
        assert cell == pytest.approx(sum(each) / 4, abs=1e-6)


def test_gpt2_stores_its_matrices_transposed_and_merges_the_same(made, tmp_path):
    """Singular values do not change under a transpose, so neither does a spectral merge."""
    folder = made("gpt2")
    for name in ("base", "one", "two"):
        tensors = load_file(folder / name / "model.safetensors")
        turned = {key: t.T.contiguous() if ".c_" in key and t.ndim == 2 else t for key, t in tensors.items()}
        write_model(tmp_path / name, turned, {"model_type": "turned", "vocab_size": 64})
    plain, turned = (dict(merged_tensors(plan_of(where, "tsv_m"))) for where in (folder, tmp_path))
    for name, tensor in plain.items():
        other = turned[name].T if ".c_" in name and tensor.ndim == 2 else turned[name]
        torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "tsv_m"])
def test_experts_in_one_tensor_merge_as_if_they_were_apart(tmp_path, method):
    """As gpt-oss and Llama 4 store them: (experts, rows, columns)."""
    random = torch.Generator().manual_seed(3)
    stack, apart = "model.layers.0.mlp.experts.down_proj", "model.layers.0.mlp.experts.{}.down_proj.weight"
    bias = torch.randn(3, 6, generator=random)
    base = torch.randn(3, 6, 10, generator=random)
    for name in ("base", "one", "two"):
        values = base if name == "base" else base + 0.1 * torch.randn(3, 6, 10, generator=random)
        write_model(tmp_path / "stacked" / name, {stack: values, f"{stack}_bias": bias}, {"model_type": "x"})
        write_model(tmp_path / "apart" / name, {apart.format(e): values[e].clone() for e in range(3)},
                    {"model_type": "x"})  # fmt: skip
    stacked = dict(merged_tensors(plan_of(tmp_path / "stacked", method)))
    single = dict(merged_tensors(plan_of(tmp_path / "apart", method)))
    assert stacked[stack].shape == (3, 6, 10)
    if method == "ties":  # density 1 by default: nothing is trimmed
        assert plan_of(tmp_path / "stacked", method).tensors[0].settings["density"] == (1.0, 1.0)
    for e in range(3):
        torch.testing.assert_close(stacked[stack][e], single[apart.format(e)], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(stacked[f"{stack}_bias"], bias)
