"""A merge as a LoRA: the loss by hand, and PEFT's own merge of it."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.__main__ import main
from merging.engine import merged_tensors
from merging.errors import UserError
from merging.events import LoraLoss
from merging.lora_export import write_lora
from merging.manifest import verify
from merging.plan import make_plan
from merging.recipe import parse_recipe
from tests.pico import make_family, write_adapter

RECIPE = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: helpful}]\n"
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def exact(tmp_path):
    """A float32 family whose only delta is diag(4, 3, 0, ...) in one matrix."""
    make_family(tmp_path, 1, dtype=torch.float32, tokenizer=True)
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors[Q] = torch.zeros(32, 32)
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    tensors[Q] = torch.diag(torch.tensor([4.0, 3.0, *[0.0] * 30]))
    save_file(tensors, tmp_path / "helpful" / "model.safetensors")
    return tmp_path


def write(folder, rank, text=RECIPE, name="out"):
    plan = make_plan(parse_recipe(text, folder))
    return next(event for event in write_lora(plan, folder / name, rank) if isinstance(event, LoraLoss))


def product(folder, matrix=Q):
    factors = load_file(folder / "adapter_model.safetensors")
    stem = "base_model.model." + matrix.removesuffix(".weight")
    return factors[f"{stem}.lora_B.weight"] @ factors[f"{stem}.lora_A.weight"]


def test_the_loss_of_diag_4_3_at_rank_1_is_three_fifths(exact):
    loss = write(exact, 1)
    assert loss.matrices[Q] == pytest.approx(0.6)
    assert (loss.held, loss.whole, loss.left_out) == (pytest.approx(0.6), pytest.approx(0.6), 0.0)
    assert loss.matrices["model.layers.1.mlp.up_proj.weight"] == 0.0
    torch.testing.assert_close(product(exact / "out"), torch.diag(torch.tensor([4.0, *[0.0] * 31])))
    assert "Rank 1: 60.00 % of the norm" in (exact / "out" / "README.md").read_text()


@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_m", "resm", "linear", "ties"])
def test_at_rank_2_nothing_is_lost(exact, method):
    text = RECIPE.replace("task_arithmetic", method)
    assert write(exact, 2, text).whole < 1e-6
    found = dict(merged_tensors(make_plan(parse_recipe(text, exact))))[Q]
    torch.testing.assert_close(product(exact / "out"), found)
    assert write(exact, 999, text, "full").rank == 32


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "resm"])
def test_a_merge_of_adapters_keeps_its_own_factors(tmp_path, monkeypatch, method):
    """Two ranks of 4 fit into one of 8, and no dense matrix is decomposed for it."""
    make_family(tmp_path, 0, dtype=torch.float32)
    for name, modules in (("one", (Q,)), ("two", (Q, "model.layers.1.mlp.down_proj.weight"))):
        shapes = {Q: (32, 32), "model.layers.1.mlp.down_proj.weight": (32, 64)}
        write_adapter(tmp_path / name, {module.removesuffix(".weight"): shapes[module] for module in modules})
    text = f"merge_method: {method}\nbase_model: base\nmodels: [{{model: base+one}}, {{model: base+two}}]\n"
    monkeypatch.setattr("merging.lora_export.svd", lambda matrix: pytest.fail("a dense matrix is decomposed"))
    assert write(tmp_path, 8, text).whole < 1e-6
    merged = dict(merged_tensors(make_plan(parse_recipe(text, tmp_path))))
    base = load_file(tmp_path / "base" / "model.safetensors")
    torch.testing.assert_close(product(tmp_path / "out"), merged[Q] - base[Q], atol=1e-5, rtol=0)


def test_what_a_lora_cannot_hold_is_counted(exact):
    tensors = load_file(exact / "helpful" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].clone()
    tensors["lm_head.weight"][0, 0] += 12  # beside the delta of norm 5: 12 of 13 in all
    save_file(tensors, exact / "helpful" / "model.safetensors")
    loss = write(exact, 2)
    assert loss.left_out_names == ("lm_head.weight",)
    assert loss.left_out == pytest.approx(12 / 13)
    assert "1 changed tensor cannot be held" in (exact / "out" / "README.md").read_text()


@pytest.mark.parametrize("text", [RECIPE, "merge_method: tsv_m\nbase_model: base\nmodels: [{model: helpful}]\n"])
def test_peft_merges_it_to_base_and_approximation(tmp_path, text):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    make_family(tmp_path, 1, dtype=torch.float32, tokenizer=True)
    loss = write(tmp_path, 4, text)
    assert 0 < loss.held < 1
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = PeftModel.from_pretrained(base, tmp_path / "out").merge_and_unload()
    found, stored = model.state_dict(), load_file(tmp_path / "base" / "model.safetensors")
    whole = dict(merged_tensors(make_plan(parse_recipe(text, tmp_path))))
    squares = {"lost": 0.0, "all": 0.0}
    for name, share in loss.matrices.items():
        torch.testing.assert_close(found[name], stored[name] + product(tmp_path / "out", name), atol=1e-5, rtol=0)
        lost, delta = (found[name] - whole[name]).double().norm(), (whole[name] - stored[name]).double().norm()
        assert float(lost / delta) == pytest.approx(share, abs=1e-4)
        squares["lost"] += float(lost) ** 2
        squares["all"] += float(delta) ** 2
    assert math.sqrt(squares["lost"] / squares["all"]) == pytest.approx(loss.held, abs=1e-4)
    assert torch.equal(found["lm_head.weight"], stored["lm_head.weight"])


def test_the_command_says_the_loss(exact, capsys):
    (exact / "recipe.yml").write_text(RECIPE)
    recipe, out = str(exact / "recipe.yml"), exact / "out"
    assert main(["merge", recipe, str(out), "--lora-rank", "1", "--device", "cpu"]) == 0
    assert "60.00 %" in capsys.readouterr().out
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (1, 1, "base")
    assert "q_proj" in config["target_modules"]
    assert "lm_head" not in config["target_modules"]
    assert verify(out).sources == "same"
    assert str(exact) not in "".join(p.read_text() for p in out.iterdir() if p.suffix != ".safetensors")
    assert main(["merge", recipe, str(exact / "j"), "--lora-rank", "1", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-2]["event"] == "lora_loss"
    assert events[-2]["held"] == pytest.approx(0.6)


@pytest.mark.parametrize("rank", ["0", "-3", "many", "1.5"])
def test_a_rank_that_is_none(exact, capsys, rank):
    (exact / "recipe.yml").write_text(RECIPE)
    assert main(["merge", str(exact / "recipe.yml"), str(exact / "out"), f"--lora-rank={rank}"]) == 2
    assert "lora-rank" in capsys.readouterr().err
    assert not (exact / "out").exists()


def test_an_adapter_is_not_resumed_and_needs_a_base(exact, capsys):
    (exact / "recipe.yml").write_text(RECIPE)
    assert main(["merge", str(exact / "recipe.yml"), str(exact / "out"), "--lora-rank", "2", "--resume"]) == 2
    assert "one piece" in capsys.readouterr().err
    with pytest.raises(UserError, match="names none"):
        write(exact, 2, "merge_method: linear\nmodels: [{model: base}, {model: helpful}]\n")
