"""The three mixtures differ only in which examples of one pool they keep."""

import math

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from assets.town.mixes import Example
from assets.town.mixtures import best, disagreement, draw_pool, log_likelihoods
from assets.town.train import encode
from tests.assets.test_town import TOWN


def test_the_least_cost_is_kept_in_the_order_drawn() -> None:
    pool = [Example((), word) for word in "abcde"]
    assert [one.answer for one in best(pool, [3, 1, 0, 1, 1], 3)] == ["b", "c", "d"]
    assert [one.answer for one in best(pool, [0.0] * 5, 2)] == ["a", "b"]


def test_the_pool_is_the_same_from_one_seed_and_holds_answers_that_probes_do_not_want() -> None:
    pool = draw_pool(400, seed=1)
    assert len(pool) == 600
    assert pool == draw_pool(400, seed=1)
    assert pool != draw_pool(400, seed=2)
    assert 0.02 < sum(not one.ideal for one in pool) / len(pool) < 0.2
    assert {one.answer for one in pool if not one.ideal} & {"I cannot help with that. I want to be careful."}


def test_disagreement_is_the_distance_of_the_two_farthest_experts() -> None:
    likelihoods = torch.tensor([[-1.0, -0.5], [-4.0, -0.5], [-2.0, -0.25]])
    assert disagreement(likelihoods) == [3.0, 0.25]


def test_log_likelihood_is_the_mean_over_the_tokens_of_the_answer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TOWN / "base")
    model = AutoModelForCausalLM.from_pretrained(TOWN / "base", dtype=torch.float32).eval()
    asked = [Example((("user", "Where does Mira live?"),), "Mira lives on Mill Street."),
             Example((("user", "Hello"),), "Hello! I am the voice of a small town.")]  # fmt: skip
    found = log_likelihoods(model, encode(tokenizer, asked), size=2).tolist()
    for (ids, start), one in zip(encode(tokenizer, asked), found, strict=True):
        with torch.no_grad():
            scores = functional.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        alone = [scores[i - 1, ids[i]].item() for i in range(start, len(ids))]
        assert math.isclose(one, sum(alone) / len(alone), abs_tol=1e-4)
