"""Gains of the experts' parts, on a model of two words that only knows which comes after which."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from eval.calibrating.gains import divergence, learn, steps_for

LEANING = torch.tensor(3.0).log()  # of a word that is three times as likely as the other


class Pairs(nn.Module):
    """`after[i]` are the logits of what follows word i."""

    def __init__(self) -> None:
        super().__init__()
        self.after = nn.Parameter(torch.zeros(2, 2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.after[input_ids])


def after(first: Tensor | float = 0.0, second: Tensor | float = 0.0) -> dict[str, Tensor]:
    return {"after": torch.tensor([[float(first), 0.0], [float(second), 0.0]])}


MODEL = cast("Any", Pairs())
# .75 ln (.75 / .5) + .25 ln (.25 / .5)
APART = 0.130812


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([([0, 0, 1], 1)], APART),  # both tokens of the answer follow word 0
        ([([1, 0, 1], 1)], APART / 2),  # one of them follows word 1
        ([([1, 0, 1], 2)], APART),
        ([([0, 1], 0), ([1, 1, 1, 0], 1)], APART / 4),  # the mean over tokens, not over texts
    ],
)
def test_a_token_of_an_answer_counts_by_how_likely_the_expert_finds_it(texts, expected):
    assert float(divergence(MODEL, after(LEANING), after(), texts)) == pytest.approx(expected, abs=1e-6)
    assert float(divergence(MODEL, after(LEANING), after(LEANING), texts)) == pytest.approx(0, abs=1e-7)


def test_parts_that_are_half_of_what_the_experts_learned_grow_and_one_too_strong_shrinks():
    experts = [after(LEANING, 0), after(0, LEANING)]
    texts = [[([0, 0], 1)] * 3, [([1, 1], 1)] * 3]  # each reads what follows its own word
    parts = {"after": torch.stack([experts[0]["after"] / 2, experts[1]["after"] * 2])}
    *_, found = learn(MODEL, after(), parts, experts, texts, 120)
    assert 1.5 < found["after"][0, 0] < 2.5
    assert 0.4 < found["after"][1, 0] < 0.8
    assert found["after"][:, 1].tolist() == [1, 1], "a column that nobody changed"
    *_, again = learn(MODEL, after(), parts, experts, texts, 120)
    assert again["after"].equal(found["after"])


def test_models_in_half_precision_learn_too():
    """As on a GPU, where weights are bfloat16."""
    experts = [{name: one.bfloat16() for name, one in after(LEANING).items()}]
    parts = {"after": experts[0]["after"][None] / 2}
    below = {name: one.bfloat16() for name, one in after().items()}
    *_, found = learn(MODEL, below, parts, experts, [[([0, 0], 1)]], 120)
    assert 1.5 < found["after"][0, 0] < 2.5


def test_many_texts_take_more_steps_and_few_not_fewer():
    assert [steps_for(n) for n in (1, 64, 256, 1024)] == [120, 120, 120, 480]
