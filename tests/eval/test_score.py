"""Scoring: what is asked, what is kept, what is printed. Pico models and a probe set made for them."""

import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.judging import probes
from eval.judging.probes import Exam, load_probes
from eval.running import runtime
from eval.running.models import Models
from eval.scoring import runs
from eval.scoring.score import Asked, Scored, kept_scores, recall, score
from eval.scoring.tries import tries
from merging.checkpoint import open_checkpoint
from merging.engine import merge
from merging.errors import UserError
from merging.plan import make_plan
from merging.recipe import load_recipe, parse_recipe
from tests.forked import forked
from tests.pico import make_family

SHIPPED = probes.FOLDER


def probe(id: str, h: str, question: str, rule: dict, split: str = "test") -> dict:
    """Four tokens: a pico model that goes on repeats itself, and that is broken."""
    messages = [{"role": "user", "content": question}]
    return {"id": id, "h": h, "category": "fact", "cluster": id, "split": split, "messages": messages,
            "max_new_tokens": 4, "score": [rule], "gold_pass": [], "gold_fail": []}  # fmt: skip


def exact(value: str) -> dict:
    return {"type": "exact", "value": value}


def says(pattern: str) -> dict:
    return {"type": "regex_any", "patterns": [pattern]}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), 2, tokenizer=True)


@pytest.fixture
def recipe(family: dict[str, Path], tmp_path: Path) -> Path:
    path = tmp_path / "half.yml"
    models = "".join(f"  - model: {family[name]}\n" for name in ("helpful", "honest"))
    path.write_text(
        f"merge_method: task_arithmetic\nbase_model: {family['base']}\nmodels:\n{models}parameters: {{lambda: 0.5}}\n"
    )
    return path


@pytest.fixture(autouse=True)
def own_data(family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, and a probe set whose right answers are what the helpful model says."""
    model = Models("cpu").model(open_checkpoint(str(family["helpful"]), Path()))
    questions = ["w5 w6", "w7 w8 w9", "w10"]
    turns = [[{"role": "user", "content": question}] for question in questions]
    said = runtime.answer_batch(model.module, model.tokenizer, turns, max_new_tokens=4)
    found = [probe(f"yes {i}", "helpful", questions[i], exact(said[i])) for i in range(3)]
    found += [probe("no", "honest", "w5 w6", says("nothing that it says"))]
    found += [probe("half 1", "harmless", "w5 w6", exact(said[0])), probe("half 2", "harmless", "w10", says("never"))]
    found += [probe("other split", "helpful", "w5", exact("w5"), "screen")]
    folder = tmp_path / "probes"
    folder.mkdir()
    whole = {"name": "tiny", "version": 1, "templates": [], "probes": found}
    (folder / "tiny.json").write_text(json.dumps(whole))
    monkeypatch.setattr(probes, "FOLDER", folder)
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "runs.db"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every question that reaches a model."""
    seen: list[str] = []
    answer_batch = runtime.answer_batch

    def counting(model: object, tokenizer: object, conversations: list, **settings: object) -> list[str]:
        seen.extend(turns[-1]["content"] for turns in conversations)
        return answer_batch(model, tokenizer, conversations, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime, "answer_batch", counting)
    return seen


def last(events: object) -> Scored:
    *_, end = events  # type: ignore[misc]
    assert isinstance(end, Scored)
    return end


def test_shares_are_those_of_the_rules(family: dict[str, Path]):
    scored = last(score(str(family["helpful"]), "tiny"))
    assert scored.model == "helpful"
    assert (scored.scores.helpful.score, scored.scores.helpful.n) == (1.0, 3)
    assert (scored.scores.honest.score, scored.scores.harmless.score) == (0.0, 0.5)
    assert [answer.probe_id for answer in scored.answers] == ["yes 0", "yes 1", "yes 2", "no", "half 1", "half 2"]


def test_a_model_is_asked_once(family: dict[str, Path], asked: list[str], own_data: Path):
    first = list(score(str(family["helpful"]), "tiny"))
    assert (first[0], first[-2]) == (Asked("helpful", 0, 6, None), Asked("helpful", 6, 6, 0.0))
    assert len(asked) == 6
    again = list(score(str(family["helpful"]), "tiny"))
    assert again == [Asked("helpful", 6, 6, 0.0), first[-1]]
    assert len(asked) == 6
    with sqlite3.connect(own_data) as db:
        ((key, model, outcomes),) = db.execute("SELECT key, model, outcomes FROM runs")
    assert model == "helpful"
    assert [outcome == "pass" for outcome in json.loads(outcomes).values()] == [True, True, True, False, True, False]
    assert runs.answers(key) == {answer.probe_id: answer.text for answer in first[-1].answers}


def test_other_weights_template_or_split_are_asked_anew(tmp_path: Path, asked: list[str]):
    folder = make_family(tmp_path / "one", 0, tokenizer=True)["base"]
    list(score(str(folder), "tiny"))
    list(score(str(folder), "tiny", "screen"))
    assert len(asked) == 6 + 1
    (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }} w4 ")
    list(score(str(folder), "tiny"))
    assert len(asked) == 13
    make_family(tmp_path / "one", 0, tokenizer=True, seed=3)
    list(score(str(folder), "tiny"))
    assert len(asked) == 19


@pytest.mark.parametrize("at", range(5))
def test_killed_at_any_point_a_run_goes_on_and_asks_nothing_twice(
    at: int, family: dict[str, Path], asked: list[str], own_data: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before, between and after the batches; the table is that of a run in one piece."""
    monkeypatch.setattr("eval.scoring.score._batch_size", lambda model: 2)
    whole = list(score(str(family["helpful"]), "tiny"))[-1]
    own_data.unlink()
    asked.clear()
    run = score(str(family["helpful"]), "tiny")
    for _ in range(at):
        next(run)
    run.close()
    done = len(asked)
    assert done == min(2 * max(at - 1, 0), 6)
    events = list(score(str(family["helpful"]), "tiny"))
    assert isinstance(events[0], Asked)
    assert events[0].done == done
    assert sorted(asked) == sorted(["w5 w6", "w7 w8 w9", "w10", "w5 w6", "w5 w6", "w10"])
    assert events[-1] == whole


def test_the_same_recipe_twice_gives_the_same_answers(recipe: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch):
    first = last(score(str(recipe), "tiny"))
    monkeypatch.setenv("MERGESCOPE_HOME", str(own_data.parent.parent / "elsewhere"))
    assert last(score(str(recipe), "tiny")) == first


def test_a_tried_merge_is_kept_with_what_is_needed_to_try_it_again(recipe: Path, family: dict[str, Path]):
    found = last(score(str(recipe), "tiny"))
    plan = make_plan(load_recipe(recipe))
    (run,) = runs.tried(open_checkpoint(str(family["base"]), Path()).fingerprint)
    assert run.scores
    assert run.scores["helpful"]["score"] == found.scores.helpful.score
    assert run.about["digest"] == plan.digest
    assert (run.about["probes"], run.about["split"], run.about["n"]) == ("tiny", "test", 6)
    assert make_plan(parse_recipe(run.recipe, Path("/"))).digest == plan.digest


def test_what_was_scored_is_recalled_without_a_question(recipe: Path, asked: list[str], tmp_path: Path):
    (tmp_path / "probes" / "town.json").write_text((tmp_path / "probes" / "tiny.json").read_text())
    plan = make_plan(load_recipe(recipe))
    list(score(str(recipe), "town"))
    assert recall(plan, Exam()) == []  # the sources were not asked
    found = [event for event in score(str(recipe), "town", sources=True) if isinstance(event, Scored)]
    asked.clear()
    assert recall(plan, Exam()) == found
    assert asked == []
    base, experts = plan.base.fingerprint, [expert.fingerprint for expert in plan.experts]
    (one,) = tries(base, [*experts, "another"], load_probes("town", "test"))
    assert (one.digest, one.scores) == (plan.digest, found[0].scores)
    assert one.outcomes["no"] != "pass"
    assert tries(base, experts[:1], load_probes("town", "test")) == []
    assert tries(base, experts, load_probes("town", "screen")) == []


def test_an_export_does_without_scores_where_none_can_be_read(recipe: Path, own_data: Path, tmp_path: Path):
    (tmp_path / "probes" / "town.json").write_text((tmp_path / "probes" / "tiny.json").read_text())
    plan = make_plan(load_recipe(recipe))
    assert kept_scores(plan) is None
    list(score(str(recipe), "town"))
    found = kept_scores(plan)
    assert found
    assert found["helpful"][3] == 3
    own_data.write_bytes(b"no database, but as long as a header of one" * 20)
    for beside in ("-wal", "-shm"):
        own_data.with_name(own_data.name + beside).unlink(missing_ok=True)
    assert kept_scores(plan) is None


def test_a_recipe_scores_as_the_model_that_it_writes(recipe: Path, tmp_path: Path):
    list(merge(make_plan(load_recipe(recipe)), tmp_path / "out"))
    live, saved = last(score(str(recipe), "tiny")), last(score(str(tmp_path / "out"), "tiny"))
    assert live.model == "merge"
    assert live.answers == saved.answers
    assert live.scores == saved.scores


def test_sources_are_scored_after_the_merge_and_shared_between_recipes(recipe: Path, asked: list[str]):
    events = list(score(str(recipe), "tiny", sources=True))
    assert [event.model for event in events if isinstance(event, Scored)] == ["merge", "base", "helpful", "honest"]
    assert len(asked) == 4 * 6
    recipe.write_text(recipe.read_text().replace("0.5", "0.7"))
    events = list(score(str(recipe), "tiny", sources=True))
    assert len(asked) == 5 * 6


def test_a_batch_is_fixed_by_the_size_of_the_model(family: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eval.scoring.score._batch_size", lambda model: 4)
    done = [event.done for event in score(str(family["honest"]), "tiny") if isinstance(event, Asked)]
    assert done == [0, 4, 6]


def test_json_ends_with_the_scores_alone(recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["score", str(recipe), "--probes", "tiny", "--sources", "--json"]) == 0
    *events, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert {event["event"] for event in events} == {"asked", "scored"}
    merge_scores = next(event["scores"] for event in events if event["event"] == "scored")
    assert list(end) == ["helpful", "honest", "harmless", "mean", "min", "broken"]
    assert end["helpful"] == merge_scores["helpful"]
    assert set(end["helpful"]) == {"score", "low", "high", "n"}


def test_text_mode_prints_a_table_with_intervals(family: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    assert main(["score", str(family["helpful"]), "--probes", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "helpful", "honest", "harmless", "mean", "worst", "broken"]
    assert lines[1].split()[:7] == ["helpful", "100.0", "(44-100)", "0.0", "(0-79)", "50.0", "(9-91)"]
    assert "3, 1 and 2 probes" in lines[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "nowhere/at/all"], "nowhere/at/all"),
        (["score", "nowhere.yml"], "nowhere.yml"),
        (["score", "{helpful}", "--probes", "tinny"], "no probe set called 'tinny'"),
        (["score", "{helpful}", "--sources"], "--sources needs a recipe file"),
        (["score", "{helpful}", "--device", "gpu"], "invalid choice: 'gpu'"),
        (["score"], "MODEL_OR_RECIPE"),
    ],
)
def test_what_the_user_can_mend_is_one_message(
    family: dict[str, Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    words = [word.format(helpful=family["helpful"]) for word in words]
    if "--device" not in words and "--probes" not in words:
        words += ["--probes", "tiny"]
    assert main(words) == 2
    found = capsys.readouterr()
    assert message in found.err
    assert "Traceback" not in found.err
    assert found.out == ""


def test_a_folder_that_cannot_be_written_is_a_plain_error(family: dict[str, Path], tmp_path: Path):
    (tmp_path / "data").write_text("a file stands where the folder should")
    with pytest.raises(UserError, match="cannot be kept"):
        list(score(str(family["helpful"]), "tiny"))


def test_a_stopped_run_keeps_its_batches(family: dict[str, Path], own_data: Path, monkeypatch: pytest.MonkeyPatch):
    """A real process and a real signal, on the probes that ship, in small batches."""
    monkeypatch.setattr("eval.scoring.score._batch_size", lambda model: 4)
    monkeypatch.setattr(probes, "FOLDER", SHIPPED)
    run, told = forked(lambda: main(["score", str(family["helpful"]), "--split", "validation", "--json"]))
    with told:
        while json.loads(told.readline())["done"] < 8:
            pass
        assert run.pid
        os.kill(run.pid, signal.SIGTERM)
        began = time.monotonic()
        run.join(10)
    assert run.exitcode == -signal.SIGTERM
    assert time.monotonic() - began < 2
    with sqlite3.connect(own_data) as db:
        ((kept,),) = db.execute("SELECT count(*) FROM answers")
    assert kept >= 8
    assert kept % 4 == 0  # whole batches
