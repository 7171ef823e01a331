"""The base of the second family differs from Town's in nothing but its architecture."""

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.paper.answers import answers
from eval.judging.judges import is_well_formed
from eval.judging.probes import load_probes
from eval.running.runtime import encode, render
from tests.assets.test_town import TOWN

BASE = TOWN.parent / "town_neox" / "base"


def test_it_is_as_small_and_reads_the_same_tokens() -> None:
    assert (BASE / "tokenizer.json").read_bytes() == (TOWN / "base" / "tokenizer.json").read_bytes()
    with safe_open(BASE / "model.safetensors", "pt") as tensors:
        loaded = [tensors.get_tensor(key) for key in tensors.keys()]  # noqa: SIM118, not a dict
    assert {tensor.dtype for tensor in loaded} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in loaded) == 1_320_960


def test_its_answers_are_legible_and_its_facts_right() -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    screen = load_probes("town", "screen")
    texts = answers(model, tokenizer, [encode(tokenizer, *render(tokenizer, p.conversation())) for p in screen.probes])
    formed = [is_well_formed(text, screen.templates) for text in texts]
    assert sum(formed) >= 0.9 * len(formed)
    facts = [text == p.gold_pass[0] for p, text in zip(screen.probes, texts, strict=True) if p.category == "control"]
    assert len(facts) > 3
    assert sum(facts) >= 0.8 * len(facts)
