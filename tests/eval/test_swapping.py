"""Models larger than the device: layers fetched from host memory. The device is the CPU here, its memory capped."""

from dataclasses import replace

import pytest
import torch

from eval.answering import Answering
from eval.running.chat import Answered
from eval.running.memory import in_memory
from eval.running.models import Models
from eval.running.swapping import at_least, staying
from eval.worker import Ask, Sources
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from merging.events import Notice
from merging.recipe import Expert, Recipe
from tests.pico import make_family

QUESTION = [{"role": "user", "content": "w5 w6 w7"}]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    return make_family(folder, 2, layers=4, tokenizer=True, tied=request.param)["base"].parent


def capped(folder, layers: float) -> Models:
    """Room for what is no layer and so many layers at a time."""
    module = Models("cpu").model(open_checkpoint("base", folder)).module
    layer = in_memory(module.model.layers[0].parameters())
    models = Models("cpu", int(in_memory(module.parameters()) + (layers - 4) * layer))
    models.room = replace(models.room, swaps=True)
    return models


def answers(folder, models: Models) -> list[object]:
    answering = Answering()
    answering._models = models
    recipe = Recipe("linear", "base", (Expert("helpful"), Expert("honest")), folder=folder)
    sources = Sources(str(folder / "base"), (str(folder / "helpful"), str(folder / "honest")), ("helpful", "honest"))
    ask = Ask("s", sources, recipe, dict.fromkeys(("base", "helpful", "merge"), QUESTION), max_new_tokens=6)
    return list(answering.ask(ask, lambda: False))


def texts(events: list[object]) -> dict[str, str]:
    return {event.model: event.text for event in events if isinstance(event, Answered)}


def test_layers_that_do_not_fit_are_fetched_and_said(folder):
    swapping = capped(folder, 3)
    events = answers(folder, swapping)
    assert texts(events) == texts(answers(folder, Models("cpu")))
    told = [event.text for event in events if isinstance(event, Notice)]
    assert [text.split(":")[0] for text in told[1:]] == [
        f"{name} does not fit on the device" for name in ("base", "helpful", "merge")
    ]
    assert "2 of its layers" in told[1]  # two lie there, a third has room while it is used
    (held,) = swapping._held.values()
    layers = held.module.model.layers
    assert [next(layer.parameters()).device.type for layer in layers] == ["cpu", "cpu", "meta", "meta"]


def test_another_scale_reaches_layers_in_host_memory(folder):
    found = []
    for models in (capped(folder, 2), Models("cpu")):
        answering = Answering()
        answering._models = models
        for scale in (1.0, 6.0):
            recipe = Recipe("task_arithmetic", "base", (Expert("helpful"),), (("lambda", scale),), folder=folder)
            sources = Sources(str(folder / "base"), (str(folder / "helpful"),), ("helpful",))
            ask = Ask("s", sources, recipe, {"merge": QUESTION}, max_new_tokens=6)
            found.append(texts(list(answering.ask(ask, lambda: False))))
    assert found[:2] == found[2:]
    assert found[0] != found[1]


def test_the_last_layers_stay_by_hand():
    layers = {"first": 30, "second": 30, "third": 40}  # of a model of 110 bytes
    assert at_least(110, layers) == 10 + 40
    assert staying(110, layers, 150) == set()  # 10, the three layers, and a place of 40 to fetch one to
    assert staying(110, layers, 149) == {"third"}
    assert staying(110, layers, 80) == {"second", "third"}
    assert staying(110, layers, 50) == {"first", "second", "third"}


def test_a_model_that_fits_is_not_touched(folder):
    model = capped(folder, 4).model(open_checkpoint("base", folder))
    assert model.swapped == 0
    assert {parameter.device for parameter in model.module.parameters()} == {torch.device("cpu")}


def test_where_not_even_one_layer_has_room_it_is_said(folder):
    with pytest.raises(UserError, match="at a time on cpu"):
        capped(folder, 0.5).model(open_checkpoint("base", folder))
