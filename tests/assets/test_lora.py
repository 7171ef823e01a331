"""An adapter as Town's training saves it is what PEFT and this project's reader make of it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from assets.town.lora import LoraLinear, add_lora, save_lora
from assets.town.train import new_model, save
from eval.running.loading import load_source
from merging.models import open_model

TOWN = Path(__file__).resolve().parents[2] / "assets" / "town"
IDS = torch.tensor([[2, 40, 700, 3, 15]])


def _base(kind: str, folder: Path) -> PreTrainedModel:
    model = new_model(3, kind)
    save(model, AutoTokenizer.from_pretrained(TOWN / "base"), folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize(("kind", "n"), [("llama", 7 * 6), ("gpt_neox", 4 * 6)])
def test_peft_and_the_merge_reader_read_what_is_saved(kind: str, n: int, tmp_path: Path) -> None:
    model = _base(kind, tmp_path / "base")
    before = model(IDS).logits
    add_lora(model, seed=0)
    assert torch.equal(model(IDS).logits, before), "a new adapter changes nothing"
    adapters = [module for module in model.modules() if isinstance(module, LoraLinear)]
    assert len(adapters) == n
    for module in adapters:
        torch.nn.init.normal_(module.b, std=0.05)
    save_lora(model, tmp_path / "base", tmp_path / "adapter")
    wanted = model(IDS).logits
    assert not torch.allclose(wanted, before, atol=1e-2)
    below = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    from peft import PeftModel  # takes seconds: not at every collection

    theirs = PeftModel.from_pretrained(below, tmp_path / "adapter")
    torch.testing.assert_close(theirs(IDS).logits, wanted, atol=1e-4, rtol=1e-4)
    ours = load_source(open_model(f"{tmp_path / 'base'}+{tmp_path / 'adapter'}", Path()), torch.float32)
    torch.testing.assert_close(ours(IDS).logits, wanted, atol=1e-4, rtol=1e-4)


def test_only_the_adapter_is_trained(tmp_path: Path) -> None:
    model = _base("llama", tmp_path / "base")
    add_lora(model, seed=0)
    trained = {name.rsplit(".", 1)[-1] for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {"a", "b"}
