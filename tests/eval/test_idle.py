"""The live worker's idle time, in a real process: what it prepares, and that a move does not wait for it."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks import family as synthetic
from eval.worker import Ask, Move, Sources
from merging.live_events import LookReady, StateReady
from merging.recipe import Expert, Recipe
from tests.eval.test_worker import TIMEOUT, Client

FOCUS = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERGESCOPE_HOME", str(tmp_path_factory.mktemp("home")))
        client = Client()
    yield client
    client.pipe.close()
    client.process.join(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SIZES, "ranks", (256, 256, 1, 64, 4, 4))
        return synthetic.make_family("ranks", tmp_path_factory.mktemp("family"))


def cpu(client: Client) -> float:
    """CPU seconds of the worker so far."""
    fields = Path(f"/proc/{client.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rested(client: Client) -> float:
    """The same once it has nothing left to do."""
    before = -1.0
    while (now := cpu(client)) > before + 0.01:
        before = now
        time.sleep(1)  # idle work waits a moment before it begins
    return now


def move(folder: Path, rank: float, weight: float = 1.0, rule: str = "uniform") -> Move:
    models = [str(folder / name) for name in synthetic.EXPERTS]
    experts = (Expert(models[0], (("weight", weight),)), *map(Expert, models[1:]))
    settings = {"rank_mode": rule, "outlier_mode": "none", "exclude": ("*embed*", "*lm_head*"),
                "rank_budget": rank}  # fmt: skip
    base = str(folder / "base")
    recipe = Recipe("resm", base, experts, tuple(settings.items()))
    return Move("a", Sources(base, tuple(models), synthetic.EXPERTS), recipe, FOCUS)


def spent(client: Client, request: Move) -> float:
    """CPU seconds until the pictures of a move are there; waits until its weights are, too."""
    before, after = cpu(client), 0.0
    number = client.send(request)
    kinds = []
    while True:
        assert client.pipe.poll(TIMEOUT)
        answered, event = client.pipe.recv()
        assert answered == number
        if event is None:
            assert kinds[-1] is StateReady
            return after - before
        kinds.append(type(event))
        if isinstance(event, LookReady):
            after = cpu(client)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU time of another process is read from /proc")
def test_a_move_does_not_wait_for_idle_work_and_every_stop_is_ready(client: Client, folder: Path):
    spent(client, move(folder, 0.3))
    far = spent(client, move(folder, 0.9))  # when hardly a stop is prepared
    settled = cpu(client)
    idle = rested(client) - settled  # seven matrices at all stops
    ready = spent(client, move(folder, 0.6))
    assert idle > far > 2 * ready
    spent(client, move(folder, 0.6, weight=0.0))  # two experts fold to something else
    at_once = spent(client, move(folder, 0.6, weight=0.0))  # while it prepares that
    assert at_once < far / 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU time of another process is read from /proc")
def test_idle_work_goes_on_after_a_question(client: Client, folder: Path):
    rested(client)
    hoyer = partial(move, folder, 0.2, rule="hoyer")  # of another rule nothing is ready
    spent(client, hoyer())
    client.send(Ask("b", hoyer().sources, None, {"base": [{"role": "user", "content": "Hi"}]}))  # stops what goes on
    while client.pipe.recv()[1] is not None:
        pass
    answered = cpu(client)
    idle = rested(client) - answered
    assert idle > spent(client, hoyer(weight=0.5))
