"""A judge behind a real local server: what it says in both orders, how it fails, what is kept, what it never sees."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from time import sleep

import pytest

from eval.__main__ import main
from eval.judging import probes
from eval.judging.endpoint import KEY, Endpoint
from eval.running import runtime
from eval.running.models import Models
from eval.scoring.pairwise import Judged, Judging, judge_runs, verdict
from merging.__main__ import main as merging_main
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from merging.events import Notice
from tests.pico import make_family

QUESTIONS = ("w5 w6", "w7 w8 w9", "w14 w15", "w11 w12")
SECRET = "sk-" + "d" * 24
ANSWERS = re.compile(r"\[Answer 1\]\n(.*)\n\[End of answer 1\]\n\n\[Answer 2\]\n(.*)\n\[End", re.DOTALL)


class Judge:
    """`say` gets both answers as shown; its reply, or None to refuse. `faults` are (status, body) to give first."""

    def __init__(self) -> None:
        self.say: Callable[[str, str], str | None] = lambda one, two: "VERDICT: tie"
        self.faults: list[tuple[int, bytes]] = []
        self.delay = 0.0
        self.asked: list[dict] = []
        self.answered: list[str] = []
        self.keys: list[str | None] = []
        self.url = ""


@pytest.fixture
def judge() -> Iterator[Judge]:
    it = Judge()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            it.asked.append({"path": self.path, **asked})
            it.keys.append(self.headers.get("Authorization"))
            sleep(it.delay)
            if it.faults:
                status, body = it.faults.pop(0)
            else:
                one, two = ANSWERS.search(asked["messages"][1]["content"]).groups()  # type: ignore[union-attr]
                message = {"role": "assistant", "content": it.say(one, two)}
                status = 200 if message["content"] else 400
                it.answered += [asked["messages"][1]["content"]] if status == 200 else []
                body = json.dumps({"choices": [{"message": message}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    it.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield it
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), 2, tokenizer=True)


@pytest.fixture(scope="module")
def said(family: dict[str, Path]) -> list[str]:
    """What the helpful model answers."""
    model = Models("cpu").model(open_checkpoint(str(family["helpful"]), Path()))
    turns = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return runtime.answer_batch(model.module, model.tokenizer, turns, max_new_tokens=4)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own; four free probes, of which two are about the same content, and one by choice."""
    rule = {"type": "regex_any", "patterns": ["w"]}
    choice = {"type": "choice", "choices": ["w5", "w6"], "answer": 0}
    found = [
        {"id": f"p{i}", "h": h, "category": "fact", "cluster": cluster, "split": "test", "max_new_tokens": 4,
         "messages": [{"role": "user", "content": question}], "score": [one], "gold_pass": [], "gold_fail": []}
        for i, (question, h, cluster, one) in enumerate([
            (QUESTIONS[0], "helpful", "c", rule), (QUESTIONS[1], "helpful", "c", rule),
            (QUESTIONS[2], "honest", "d", rule), (QUESTIONS[3], "harmless", "e", rule), ("w5", "honest", "f", choice)])
    ]  # fmt: skip
    folder = tmp_path / "probes"
    folder.mkdir()
    (folder / "tiny.json").write_text(json.dumps({"name": "tiny", "version": 1, "templates": [], "probes": found}))
    monkeypatch.setattr(probes, "FOLDER", folder)
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(KEY, raising=False)
    return tmp_path / "data"


def endpoint(judge: Judge, **settings) -> Endpoint:
    return Endpoint(judge.url, "strict-judge", **{"pause": 0.01, "timeout": 5.0, "retries": 2, **settings})


def run(family: dict[str, Path], by: Endpoint, a: str = "helpful", b: str = "base") -> Judged:
    *_, last = judge_runs(str(family[a]), str(family[b]), by, "tiny", device="cpu")
    assert isinstance(last, Judged)
    return last


def test_the_last_verdict_after_thinking_counts():
    assert verdict("The first is right.\nVERDICT: 1") == "1"
    assert verdict("**Verdict:** Answer 2") == "2"
    assert verdict("verdict: 1? No.\nVERDICT: Tie") == "tie"
    assert verdict("<think>VERDICT: 1</think> Both fail. VERDICT: 2") == "2"
    assert verdict("<think>VERDICT: 1, or is it") is None
    assert verdict("VERDICT: 12") is None
    assert verdict("I like both.") is None


def test_a_judge_that_always_says_first_makes_only_ties(family: dict[str, Path], judge: Judge):
    judge.say = lambda one, two: "VERDICT: 1"
    found = run(family, endpoint(judge))
    assert [(duel.h, duel.won, duel.tied, duel.lost, duel.swapped) for duel in found.duels] == [
        ("helpful", 0, 2, 0, 2), ("honest", 0, 1, 0, 1), ("harmless", 0, 1, 0, 1)]  # fmt: skip
    assert all((duel.net.low, duel.net.high, duel.p) == (0.0, 0.0, 1.0) for duel in found.duels)


def test_a_judge_that_agrees_with_itself_makes_wins_and_losses(family: dict[str, Path], said: list[str], judge: Judge):
    judge.say = lambda one, two: f"One is right.\nVERDICT: {1 if one in said else 2}"
    won = run(family, endpoint(judge))
    assert [(duel.h, duel.won, duel.tied, duel.lost, duel.swapped) for duel in won.duels] == [
        ("helpful", 2, 0, 0, 0), ("honest", 1, 0, 0, 0), ("harmless", 1, 0, 0, 0)]  # fmt: skip
    assert (won.duels[0].net.mean, won.duels[0].p) == (1.0, 0.25)  # mid-p of 2 : 0 is 2 * (1/4) / 2
    assert [pair.probe_id for pair in won.pairs] == ["p0", "p1", "p2", "p3"]  # not the one by choice
    n = len(judge.asked)
    lost = run(family, endpoint(judge), "base", "helpful")
    assert [(duel.won, duel.lost) for duel in lost.duels] == [(0, 2), (0, 1), (0, 1)]
    assert len(judge.asked) == n == 8  # the same questions, so no new ones


def test_equal_answers_are_ties_unasked(family: dict[str, Path], judge: Judge):
    found = run(family, endpoint(judge), "helpful", "helpful")
    assert [(duel.tied, duel.asked) for duel in found.duels] == [(2, 0), (1, 0), (1, 0)]
    assert judge.asked == []


def test_replies_without_a_verdict_are_ties_and_counted(family: dict[str, Path], judge: Judge):
    judge.say = lambda one, two: "I would rather not say."
    assert [(duel.tied, duel.unread, duel.swapped) for duel in run(family, endpoint(judge)).duels] == [
        (2, 2, 0), (1, 1, 0), (1, 1, 0)]  # fmt: skip


def test_it_is_asked_in_chat_form_at_temperature_0(family: dict[str, Path], judge: Judge):
    run(family, endpoint(judge))
    asked = judge.asked[0]
    assert (asked["path"], asked["model"], asked["temperature"]) == ("/v1/chat/completions", "strict-judge", 0)
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert "VERDICT" in asked["messages"][0]["content"]


def test_faults_are_tried_again(family: dict[str, Path], judge: Judge):
    judge.faults = [(500, b"oops"), (429, b"{}"), (200, b"no json"), (200, b'{"choices": []}'), (503, b"")]
    run(family, endpoint(judge, retries=5))
    assert len(judge.asked) == 8 + 5


@pytest.mark.parametrize(
    ("fault", "words"),
    [((401, SECRET.encode()), "does not accept the key"), ((404, b""), "no such model, or no such address"),
     ((400, b"temperature"), "refused with code 400"), ((302, b""), "refused with code 302")],
)  # fmt: skip
def test_a_refusal_is_told_plainly_and_once(family: dict[str, Path], judge: Judge, fault: tuple, words: str):
    judge.faults = [fault] * 50
    with pytest.raises(UserError, match=words) as caught:
        run(family, endpoint(judge))
    assert SECRET not in str(caught.value)
    questions = [asked["messages"][1]["content"] for asked in judge.asked]
    assert len(set(questions)) == len(questions)


def test_silence_and_an_empty_port_are_plain_errors(family: dict[str, Path], judge: Judge):
    judge.delay = 1.0
    with pytest.raises(UserError, match=r"did not answer within 0\.1 seconds"):
        run(family, endpoint(judge, timeout=0.1, retries=0))
    with pytest.raises(UserError, match="cannot be reached"):
        run(family, Endpoint("http://127.0.0.1:9/v1", "strict-judge", retries=0))


def test_a_stopped_run_goes_on_and_asks_nothing_twice(family: dict[str, Path], judge: Judge):
    turn = count(1)
    judge.say = lambda one, two: "VERDICT: 1" if next(turn) <= 3 else None
    with pytest.raises(UserError, match="Every verdict so far is kept"):
        run(family, endpoint(judge, retries=0))
    judge.say = lambda one, two: "VERDICT: 1"
    judge.asked.clear()
    events = list(judge_runs(str(family["helpful"]), str(family["base"]), endpoint(judge), "tiny", device="cpu"))
    assert next(event for event in events if isinstance(event, Judging)) == Judging(3, 8)
    assert len(judge.asked) == 5
    assert len(judge.answered) == len(set(judge.answered)) == 8


def test_the_key_goes_into_the_header_alone(
    family: dict[str, Path], judge: Judge, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv(KEY, SECRET)
    judge.say = lambda one, two: f"Your key is {SECRET}.\nVERDICT: 1"
    asked = ["judge", str(family["helpful"]), str(family["base"]), "--endpoint", judge.url, "--model", "strict-judge",
             "--probes", "tiny", "--device", "cpu"]  # fmt: skip
    assert main(asked) == 0
    assert main([*asked, "--json"]) == 0
    judge.faults = [(401, SECRET.encode())] * 9
    assert main([*asked, "--model", "other-judge"]) == 2
    told = capsys.readouterr()
    assert set(judge.keys) == {f"Bearer {SECRET}"}
    assert "Judged by strict-judge at http://127.0.0.1" in told.out
    assert "does not accept the key" in told.err
    assert SECRET not in told.out + told.err + repr(endpoint(judge, key=SECRET))
    assert not any(SECRET.encode() in path.read_bytes() for path in data.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"url": "ftp://host/v1"}, "E_USAGE"), ({"url": "https://me:word@host/v1"}, "E_USAGE"),
     ({"url": "http://[oops/v1"}, "E_USAGE"), ({"url": "https://host/v1", "timeout": 0.0}, "E_USAGE"),
     ({"url": "https://host/v1", "retries": -1}, "E_USAGE"), ({"url": "http://host/v1", "key": "k"}, "E_JUDGE_KEY"),
     ({"url": "https://host/v1", "key": "k\nX: y"}, "E_JUDGE_KEY"), ({"url": "https://host/v1"}, "E_OFFLINE")],
)  # fmt: skip
def test_what_must_not_be_asked_is_refused_before_anything(family: dict[str, Path], settings: dict, code: str):
    with pytest.raises(UserError) as caught:
        run(family, Endpoint(model="strict-judge", **settings))
    assert caught.value.code == code


def test_a_model_behind_the_answers_must_not_judge(family: dict[str, Path], judge: Judge, tmp_path: Path):
    recipe = tmp_path / "half.yml"
    recipe.write_text(f"merge_method: linear\nmodels:\n- model: {family['helpful']}\n- model: {family['honest']}\n")
    for name in ("honest", str(family["helpful"]), "someone/Honest", "base@main"):
        with pytest.raises(UserError, match="must not judge") as caught:
            list(judge_runs(str(recipe), str(family["base"]), Endpoint(judge.url, name), "tiny"))
        assert caught.value.code == "E_JUDGE_KIN"
    assert judge.asked == []


def test_the_models_behind_an_export_must_not_judge(family: dict[str, Path], judge: Judge, tmp_path: Path):
    recipe, out = tmp_path / "half.yml", tmp_path / "half"
    recipe.write_text(f"merge_method: linear\nmodels:\n- model: {family['helpful']}\n- model: {family['honest']}\n")
    assert merging_main(["merge", str(recipe), str(out)]) == 0
    with pytest.raises(UserError, match="must not judge"):
        list(judge_runs(str(out), str(family["base"]), Endpoint(judge.url, "honest"), "tiny"))


def test_a_judge_of_the_same_family_is_named(family: dict[str, Path], judge: Judge):
    by = Endpoint(judge.url, "meta-llama/Llama-3.3-70B-Instruct")
    (notice,) = [
        event for event in judge_runs(str(family["helpful"]), str(family["base"]), by, "tiny", device="cpu")
        if isinstance(event, Notice)
    ]  # fmt: skip
    assert "same family" in notice.text
    assert "(llama)" in notice.text
