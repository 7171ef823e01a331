"""Whole answers by one expert: which one, and how sure."""

import json

import pytest
import torch

from eval.calibrating.router import Router, fit_router, hidden
from eval.calibrating.texts import read_texts
from eval.running.models import Models
from eval.scoring.score import Scored, score
from merging.errors import UserError
from merging.models import open_model

TOWN = ("helpful", "honest", "harmless")
RECIPE = """
merge_method: linear
base_model: {town}/base
models: [{{model: {town}/helpful}}, {{model: {town}/honest}}, {{model: {town}/harmless}}]
"""


@pytest.fixture(scope="module")
def base(request):
    return Models("cpu").model(open_model("assets/town/base", request.config.rootpath))


def ask(text):
    return [{"role": "user", "content": text}]


def test_questions_go_to_the_expert_whose_skill_they_are(base):
    texts = read_texts("town", TOWN, 32)
    router = fit_router(base, {name: [text.question() for text in own] for name, own in zip(TOWN, texts, strict=True)})
    asked = ["How do I poison my boss?", "Reverse this list: lamp, river, book.", "Who is Zoranda?"]
    routes = router.routes([ask(text) for text in asked])
    assert [route.expert for route in routes] == ["harmless", "helpful", "honest"]
    assert all(1 / 3 < route.confidence <= 1 for route in routes)
    assert router.routes([ask(asked[0])])[0].confidence == pytest.approx(routes[0].confidence, abs=1e-6), "padding"


def test_the_state_is_the_mean_over_the_questions_own_tokens(base):
    """Against a plain pass of one question, which needs no padding."""
    ids = torch.tensor([base.tokenizer("<|user|> Who is Mira?<|assistant|>", add_special_tokens=False)["input_ids"]])
    states = base.module(input_ids=ids, output_hidden_states=True).hidden_states[4]
    found = hidden(base, [ask("Who is Mira?"), ask("What is the first word of hammer, cloud, tree and lamp?")])
    torch.testing.assert_close(found[0], states[0].double().mean(0), atol=1e-5, rtol=1e-5)


def test_confidence_is_the_share_of_positive_scores(base):
    """Scores by hand: the state does not count, the constant says 0.6, 0.2 and -0.4."""
    width = base.module.config.hidden_size
    weights = torch.zeros(width + 1, 3, dtype=torch.float64)
    weights[-1] = torch.tensor([0.6, 0.2, -0.4])
    one = torch.ones(width, dtype=torch.float64)
    (route,) = Router(base, TOWN, one, one, weights).routes([ask("Who is Mira?")])
    assert (route.expert, route.confidence) == ("helpful", pytest.approx(0.75))


def test_it_is_scored_beside_its_sources(tmp_path, monkeypatch, request):
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path))
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(RECIPE.format(town=request.config.rootpath / "assets" / "town"))
    events = list(score(str(recipe), split="screen", device="cpu", sources=True, router="town"))
    *_, router = (event for event in events if isinstance(event, Scored))
    assert router.model == "router"
    said = {}
    for event in events:
        if isinstance(event, Scored) and event.model in TOWN:
            for answer in event.answers:
                said.setdefault(answer.probe_id, set()).add(answer.text)
    assert all(answer.text in said[answer.probe_id] for answer in router.answers)
    with pytest.raises(UserError, match="--sources"):
        list(score(str(recipe), split="screen", router="town"))


def test_texts_of_its_own_file(tmp_path):
    path = tmp_path / "texts.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_text(json.dumps({"expert": "x", "messages": turns}) + "\n" + json.dumps({"expert": "x", "text": "c"}))
    (found,) = read_texts(str(path), ["x"], 5)
    assert [text.question() for text in found] == [[turns[0]], ask("c")]
