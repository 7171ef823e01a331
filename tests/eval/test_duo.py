"""Duo at both ends of its threshold, and what decides in between. Pico models never end by themselves."""

from pathlib import Path

import pytest
import torch

from eval.running.chat import Answered, Decoding, Pair, Prompt, Routing
from eval.running.duo import duo
from eval.running.models import Model, Models
from eval.running.runtime import answer_batch
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from tests.pico import make_family

QUESTION = [{"role": "user", "content": "w20 w30"}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folders = make_family(tmp_path_factory.mktemp("family"), 2, tokenizer=True)
    held = Models("cpu")
    return {name: held.model(open_checkpoint(str(folder), Path())) for name, folder in folders.items()}


def run(models: dict[str, Model], pair: Pair, most: int = 8) -> tuple[Routing, Answered]:
    first, *_, routing, answered = duo("duo", models, pair, QUESTION, Decoding(max_new_tokens=most), lambda: False)
    assert isinstance(first, Prompt)
    assert isinstance(routing, Routing)
    assert isinstance(answered, Answered)
    assert "".join(part.text for part in routing.parts).strip() == answered.text
    return routing, answered


def alone(model: Model, most: int = 8) -> str:
    return answer_batch(model.module, model.tokenizer, [QUESTION], max_new_tokens=most)[0]


@pytest.mark.parametrize("step", [1, 3, 64])
def test_at_0_all_is_the_drafters_and_at_1_the_others(models: dict[str, Model], step: int):
    assert alone(models["helpful"]) != alone(models["honest"])
    for threshold, writer in ((0.0, "helpful"), (1.0, "honest")):
        routing, answered = run(models, Pair("helpful", "honest", threshold=threshold, step=step))
        assert answered.text == alone(models[writer])
        assert answered.n_tokens == 8
        assert routing.shares == {"helpful": float(writer == "helpful"), "honest": float(writer == "honest")}
        assert len(routing.parts) == -(-8 // step)


def test_a_drafts_score_is_what_the_other_thinks_of_its_tokens(models: dict[str, Model]):
    """A piece of one token: the second model's own probability of it, from a plain pass."""
    routing, _ = run(models, Pair("helpful", "honest", threshold=0.0, step=1), most=1)
    model = models["honest"]
    ids = model.tokenizer("w20 w30 ", add_special_tokens=False)["input_ids"]
    drafted = model.tokenizer(alone(models["helpful"], 1), add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        expected = model.module(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)[drafted]
    assert routing.parts[0].scores[0] == pytest.approx(float(expected), rel=1e-4)
    one_above = Pair("helpful", "honest", threshold=float(expected) + 1e-3, step=1)
    assert run(models, one_above, most=1)[0].shares["honest"] == 1


def test_no_refusal_takes_what_does_not_refuse(models: dict[str, Model]):
    routing, answered = run(models, Pair("helpful", "honest", "no refusal", 0.5, 4))
    assert answered.text == alone(models["helpful"])  # made-up words refuse nothing
    assert {part.scores[0] for part in routing.parts} == {1.0}


def test_stop_ends_it(models: dict[str, Model]):
    events = list(duo("duo", models, Pair("helpful", "honest"), QUESTION, Decoding(), lambda: True))
    assert isinstance(events[-1], Answered)
    assert events[-1].n_tokens == 0


def test_one_model_is_no_pair():
    for wrong in (("a", "a"), ("a", "")):
        with pytest.raises(UserError, match="two different models"):
            Pair(*wrong)
    with pytest.raises(UserError, match="between 0 and 1"):
        Pair("a", "b", threshold=1.5)
