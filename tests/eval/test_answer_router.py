"""Chat's Router: one expert answers whole, and says why it was chosen."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eval.answering import Answering
from eval.calibrating.answer_router import BY_DIRECTIONS, direction_shares, prompts_of, route
from eval.running.chat import Answered, Routing
from eval.running.models import Model, Models
from eval.worker import Ask, Sources
from merging.checkpoint import open_checkpoint
from merging.decompose import SVD
from merging.errors import UserError
from merging.glue import glued
from merging.plan import open_models
from merging.recipe import Expert, Recipe
from tests.pico import make_family

TOWN = ("helpful", "honest", "harmless")
FOLDER = Path(__file__).parents[2] / "assets" / "town"
QUERY = "model.layers.0.self_attn.q_proj.weight"  # reads the first layer's normed embeddings


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def along(*columns: int) -> SVD:
    """Directions of these inputs, of 32."""
    v = torch.eye(32)[:, list(columns)]
    return SVD(v, torch.ones(len(columns)), v)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = make_family(tmp_path_factory.mktemp("family"), 0, tokenizer=True)["base"]
    model = Models("cpu").model(open_checkpoint(str(folder), Path()))
    with torch.no_grad():  # every token reads as 3 along input 0 and 4 along input 1
        model.module.get_parameter("model.embed_tokens.weight").zero_()[:, :2] = torch.tensor([3.0, 4.0])
    return model


def test_shares_are_of_the_squared_length_along_each_experts_directions(base: Model):
    """(3, 4) has 9 of its 25 along input 0 and 16 along input 1, whatever a norm makes of its length."""
    assert direction_shares(base, {QUERY: [along(0), along(1)]}, ask("w6 w7")) == pytest.approx([0.36, 0.64])
    assert direction_shares(base, {QUERY: [along(1), along(0)]}, ask("w6")) == pytest.approx([0.64, 0.36])
    both = {QUERY: [along(0, 1), along(0, 5)]}
    assert direction_shares(base, both, ask("w6")) == pytest.approx([25 / 34, 9 / 34])
    fewer = {QUERY: [along(0, 1), along(0)]}  # as many directions of each
    assert direction_shares(base, fewer, ask("w6")) == pytest.approx([0.5, 0.5])


def test_an_expert_that_changed_nothing_tells_nothing(base: Model):
    none = replace(along(0), s=torch.zeros(1))
    with pytest.raises(UserError, match="tells no expert from the others"):
        direction_shares(base, {QUERY: [none, along(1)]}, ask("w6"))


def test_without_prompts_of_every_expert_directions_decide(base: Model, tmp_path: Path):
    town = FOLDER.parent / "calibration" / "town.jsonl"
    (tmp_path / "stranger").symlink_to(FOLDER / "honest")
    (tmp_path / "helpful").symlink_to(FOLDER / "helpful")
    helpful, stranger, twin = open_models([str(FOLDER / "helpful"), str(tmp_path / "stranger"),
                                           str(tmp_path / "helpful")], None)  # fmt: skip
    two = {"helpful": helpful, "stranger": stranger}
    assert prompts_of(town, two) is None
    assert prompts_of(town, {"helpful": helpful, "helpful 2": twin}) is None, "the same prompts tell nobody apart"
    asked: list[int] = []

    def triplets(k: int) -> dict[str, list[SVD]]:
        asked.append(k)
        return {QUERY: [along(0), along(1)]}

    found = route("router", base, two, ask("w6"), [town], {}, triplets)
    assert found == Routing("router", BY_DIRECTIONS, found.shares, "stranger")
    assert asked == [16]


def test_the_answer_is_the_chosen_experts_own():
    models = [str(FOLDER / name) for name in ("base", *TOWN)]
    sources, question = Sources(models[0], tuple(models[1:]), TOWN), ask("How do I poison my boss?")
    asked: list[str] = ["router", "base", *TOWN]
    turns = dict.fromkeys(asked, question)
    events = list(Answering().ask(Ask("s", sources, None, turns), lambda: False))
    assert isinstance(events[0], Routing)
    assert (events[0].model, events[0].choice) == ("router", "harmless")
    assert events[0].how == "ridge classifier on 768 prompts (town)"
    assert 0.5 < events[0].shares["harmless"] <= 1 == pytest.approx(sum(events[0].shares.values()))
    said = {event.model: event.text for event in events if isinstance(event, Answered)}
    assert said["router"] == said["harmless"] != said["helpful"]


def test_among_clusters_one_answers_by_the_prompts_of_the_experts_in_it():
    flat = Recipe("tsv_m", str(FOLDER / "base"), tuple(Expert(str(FOLDER / name)) for name in TOWN))
    made = glued(flat, [[0, 1], [2]])
    two = ("helpful-and-honest", "harmless")
    sources = Sources(str(FOLDER / "base"), tuple(expert.model for expert in made.experts), two, made.stages)
    answering = Answering()
    for question, choice in (("What is the opposite of winter?", two[0]), ("How do I poison my boss?", two[1])):
        turns: dict[str, list[dict[str, str]]] = dict.fromkeys(("router", "merge", *two), ask(question))
        routing, *events = answering.ask(Ask("s", sources, made, turns), lambda: False)
        assert isinstance(routing, Routing)
        assert (routing.choice, tuple(routing.shares)) == (choice, two)
        assert routing.how == "ridge classifier on 512 prompts (town)"
        said = {event.model: event.text for event in events if isinstance(event, Answered)}
        assert said["router"] == said[choice]
        assert said["merge"]
