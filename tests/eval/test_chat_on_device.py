"""Chat with models on a device, pretended on the CPU: a tensor that is left behind is an error."""

from pathlib import Path

import pytest
import torch

from eval.answering import Answering
from eval.running.chat import Answered, Pair
from eval.worker import Ask, Move, Sources
from merging.device import Shares
from merging.live_events import FoldedReady, LiveEvent, StateReady
from merging.recipe import Expert, Recipe
from tests.pico import make_family
from tests.pretend_device import DEVICE, PretendingPool, pretend_device

NAMES = ("helpful", "honest", "harmless")
QUESTION = [{"role": "user", "content": "w5 w6 w7"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("family"), tokenizer=True)["base"].parent


def answers(folder: Path, until: type[LiveEvent] | None, *names: str) -> list[dict[str, str]]:
    """What a worker's inside says after each of two moves that are read up to this event."""
    sources = Sources(str(folder / "base"), tuple(str(folder / name) for name in NAMES), NAMES)
    pair = Pair("helpful", "honest") if "duo" in names else None
    answering, found = Answering(), []
    for scale in (1.0, 2.0) if until else (1.0,):
        recipe = Recipe("tsv_m", "base", tuple(map(Expert, NAMES)), (("lambda", scale),), folder=folder)
        if until:
            move = answering.move(Move("s", sources, recipe, None), lambda: False)
            next(event for event in move if isinstance(event, until))
            move.close()
        ask = Ask("s", sources, recipe, dict.fromkeys(names, QUESTION), max_new_tokens=5, pair=pair)
        events = answering.ask(ask, lambda: False)
        found.append({event.model: event.text for event in events if isinstance(event, Answered)})
    return found


@pytest.mark.parametrize(
    ("until", "names"),
    [
        (StateReady, ("base", "helpful", "merge")),
        (FoldedReady, ("merge",)),
        (None, ("mixture",)),
        (None, ("duo", "helpful", "honest")),
    ],
)
def test_models_answer_on_a_device_as_on_the_cpu(folder, until, names, monkeypatch: pytest.MonkeyPatch):
    here = answers(folder, until, *names)
    for module in ("eval.answering", "eval.running.models"):
        monkeypatch.setattr(f"{module}.choose_device", lambda name: torch.device(DEVICE))
    for module in ("merging.live", "eval.running.chat"):
        monkeypatch.setattr(f"{module}.ThreadPoolExecutor", PretendingPool)
    monkeypatch.setattr("eval.running.models.dtype_on", lambda device: torch.float32)  # so that answers are the same
    with pretend_device():
        there = answers(folder, until, *names)
    assert there == here
    assert set(names) <= here[0].keys()


def test_families_that_have_no_room_beside_the_latest_go(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eval.answering.choose_device", lambda name: torch.device(DEVICE))
    one, two = (Sources(str(folder / "base"), (str(folder / name),), (name,)) for name in NAMES[:2])
    with pretend_device():
        answering = Answering()
        size = answering._family(one).live.n_bytes
        answering._family(two)
        for live, kept in ((2 * size, 2), (2 * size - 1, 1), (1, 1)):
            answering._shares = Shares(0, live)
            latest = answering._family(two)
            assert len(answering._families) == kept
            assert latest in answering._families.values()
