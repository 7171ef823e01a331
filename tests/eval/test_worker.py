"""The live worker as a real process behind a real pipe."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from eval.answering import Family
from eval.running.chat import Answered, Prompt
from eval.worker import Ask, Move, Sources, serve
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from merging.folded import Folded
from merging.live import LiveMerge
from merging.live_events import FocusReady, FoldedReady, LookReady, StateReady
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from tests.forked import forked
from tests.pico import make_family

TIMEOUT = 60
FOCUS = "model.layers.1.mlp.down_proj.weight"


class Client:
    """The other end of the pipe: sends requests, collects replies by id."""

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()

        def begin() -> None:
            self.pipe.close()  # a fork has it too, and would never see it end
            serve(theirs)

        self.process, self.said = forked(begin)
        theirs.close()
        self.last = 0

    def send(self, request: object) -> int:
        self.last += 1
        self.pipe.send((self.last, request))
        return self.last

    def cancel(self, number: int) -> None:
        self.pipe.send((number, "cancel"))

    def replies(self, *numbers: int) -> list[list[object]]:
        found: dict[int, list[object]] = {number: [] for number in numbers}
        waiting = set(numbers)
        while waiting:
            assert self.pipe.poll(TIMEOUT), f"no reply to {waiting}"
            number, event = self.pipe.recv()
            if event is None:
                waiting.remove(number)
            else:
                found[number].append(event)
        return [found[number] for number in numbers]

    def ask(self, request: object) -> list[object]:
        return self.replies(self.send(request))[0]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.pipe.close()
    client.process.join(20)
    assert client.process.exitcode == 0  # it ends by itself when the page does


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), 2, tokenizer=True)


@pytest.fixture
def sources(family: dict[str, Path]) -> Sources:
    return Sources(str(family["base"]), (str(family["helpful"]), str(family["honest"])), ("helpful", "honest"))


def recipe(sources: Sources, *weights: float) -> Recipe:
    experts = tuple(
        Expert(model, (("weight", weight),)) for model, weight in zip(sources.experts, weights, strict=True)
    )
    return Recipe("task_arithmetic", sources.base, experts)


def question(*names: str) -> dict[str, list[dict[str, str]]]:
    return {name: [{"role": "user", "content": "w5 w6"}] for name in names}


def answers(events: list[object]) -> dict[str, str]:
    return {event.model: event.text for event in events if isinstance(event, Answered)}


def test_a_move_shows_the_open_matrix_then_all_then_the_weights(client: Client, sources: Sources):
    events = client.ask(Move("a", sources, recipe(sources, 1.0, 0.5), FOCUS))
    kinds = [type(event) for event in events if isinstance(event, FocusReady | LookReady | StateReady)]
    assert kinds == [FocusReady, LookReady, StateReady]
    look = next(event.look for event in events if isinstance(event, LookReady))
    assert look.family.experts == ("helpful", "honest")
    assert FOCUS in look.views


def test_the_latest_move_of_a_session_wins_and_others_are_left_alone(client: Client, sources: Sources):
    mine = [client.send(Move("a", sources, recipe(sources, 1.0, 0.1 * i), FOCUS)) for i in range(12)]
    theirs = client.send(Move("b", sources, recipe(sources, 0.5, 0.5), FOCUS))
    *early, last, other = client.replies(*mine, theirs)
    assert isinstance(last[-1], StateReady)
    assert isinstance(other[-1], StateReady)
    assert sum(any(isinstance(event, LookReady) for event in events) for events in early) < len(early)
    assert not any(isinstance(event, UserError) for events in early for event in events)


def test_a_large_familys_weights_wait_for_a_rest_or_a_question(sources: Sources, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eval.answering.limits", lambda size, room: (0, 1.0))  # no family is small enough
    monkeypatch.setattr("eval.worker._PAUSE", 600.0)
    client = Client()

    def shown(weight: float) -> int:
        number = client.send(Move("a", sources, recipe(sources, 1.0, weight), FOCUS))
        while not isinstance(client.pipe.recv()[1], LookReady):
            pass
        return number

    first = shown(0.1)
    assert not client.pipe.poll(0.5)
    second = shown(0.2)
    asking = client.send(Ask("a", sources, None, question("base"), max_new_tokens=2))
    moved, _ = client.replies(second, asking)
    assert [type(event) for event in moved] == [StateReady]
    assert first < second < asking
    client.pipe.close()
    client.process.join(20)


def test_every_model_answers_the_same_question(client: Client, sources: Sources):
    names = ("merge", "base", "helpful", "honest")
    events = client.ask(Ask("a", sources, recipe(sources, 1.0, 1.0), question(*names), max_new_tokens=8))
    assert [event.model for event in events if isinstance(event, Prompt)] == list(names)
    found = answers(events)
    assert set(found) == set(names)
    assert len(set(found.values())) > 1


@pytest.mark.parametrize(("weights", "like"), [((0.0, 0.0), "base"), ((1.0, 0.0), "helpful"), ((0.0, 1.0), "honest")])
def test_the_merge_of_one_expert_answers_as_it_does(client: Client, sources: Sources, weights: tuple, like: str):
    request = Ask("a", sources, recipe(sources, *weights), question("merge", like), temperature=1.5, max_new_tokens=20)
    found = answers(client.ask(request))
    assert found["merge"] == found[like] != ""


def test_a_question_about_a_move_under_way_is_answered_by_its_folds(family: dict[str, Path]):
    models = {name: open_checkpoint(str(folder), Path()) for name, folder in family.items()}
    base, *experts = models.values()
    asked = Family(models, LiveMerge(base, experts, tuple(family)[1:]))
    plan = make_plan(replace(recipe(Sources(str(family["base"]), tuple(str(e.folder) for e in experts), ()), 1.0, 0.5),
                             method="tsv_m"))  # fmt: skip
    found: list[Folded | None] = []
    waiting = Thread(target=lambda: found.append(asked.folded(plan)))
    with asked.busy:
        moving = asked.live.move(plan, FOCUS, lambda: False)
        next(moving)
        waiting.start()
        assert any(isinstance(event, FoldedReady) for event in moving)
        waiting.join(TIMEOUT)  # while the move still has the lock
        assert asked.live.written(plan) is None
        assert found[0] is asked.live.folded(plan) is not None
        assert [type(event) for event in moving] == [StateReady]
    assert asked.state(plan) is asked.live.written(plan)
    other = make_plan(recipe(Sources(str(family["base"]), tuple(str(e.folder) for e in experts), ()), 1.0, 0.5))
    assert asked.folded(other) is None  # its weights are not long in coming


def test_a_spectral_merge_answers_before_and_after_its_weights_are_there(client: Client, sources: Sources):
    merge = replace(recipe(sources, 1.0, 0.6), method="tsv_m")
    move = client.send(Move("a", sources, merge, FOCUS))
    early = client.send(Ask("a", sources, merge, question("merge", "base"), max_new_tokens=12))
    events, first = client.replies(move, early)
    assert isinstance(events[-1], StateReady)
    later = answers(client.ask(Ask("a", sources, merge, question("merge", "base"), max_new_tokens=12)))
    assert answers(first) == later
    assert later["merge"] != later["base"]


def test_a_question_can_be_stopped_while_another_waits(client: Client, sources: Sources):
    first = client.send(Ask("a", sources, None, question("base"), max_new_tokens=60))
    second = client.send(Ask("b", sources, None, question("base"), max_new_tokens=60))
    client.cancel(second)
    client.cancel(first)
    client.cancel(12345)  # long gone
    started, waiting = client.replies(first, second)
    assert waiting == []
    assert not any(isinstance(event, UserError) for event in started)


def test_what_the_user_can_mend_is_a_reply_and_the_worker_goes_on(client: Client, sources: Sources, tmp_path: Path):
    gone = replace(sources, base=str(tmp_path / "gone"))
    (missing,) = client.ask(Move("a", gone, recipe(sources, 1.0, 1.0), FOCUS))
    assert isinstance(missing, UserError)
    assert "gone" in str(missing)
    (unknown,) = client.ask(Ask("a", sources, None, question("merge")))
    assert isinstance(unknown, UserError)
    assert "no model called 'merge'" in str(unknown)
    assert len(answers(client.ask(Ask("a", sources, None, question("base"), max_new_tokens=2)))) == 1


def test_a_bug_is_one_plain_reply_and_the_worker_goes_on(client: Client, sources: Sources):
    (internal,) = client.ask(Move("a", sources, None, FOCUS))  # type: ignore[arg-type]
    assert isinstance(internal, UserError)
    assert internal.code == "E_INTERNAL"
    assert client.process.is_alive()


def test_a_model_replaced_in_its_folder_is_seen(client: Client, tmp_path: Path):
    folders = make_family(tmp_path, 1, tokenizer=True)
    sources = Sources(str(folders["base"]), (str(folders["helpful"]),), ("helpful",))
    request = Ask("a", sources, None, question("helpful"), max_new_tokens=20)
    before = answers(client.ask(request))
    make_family(tmp_path, 1, tokenizer=True, seed=7)
    assert answers(client.ask(request)) != before
