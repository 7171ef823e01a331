"""Answers and scores in `runs.db`: nothing is lost, nothing is kept twice."""

import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from eval.scoring import runs
from eval.scoring.runs import Run
from eval.scoring.votes import Vote
from merging.errors import UserError

RUN = Run("k1", "merge", "fam", "merge_method: linear", {"probes": "town"})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_data_folder_is_told_by_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch):
    assert runs.data_folder() == home
    monkeypatch.delenv("MERGESCOPE_HOME")
    assert runs.data_folder() == Path.home() / ".cache" / "mergescope"


def test_answers_outlive_the_run_and_the_first_one_stays():
    assert runs.begin(RUN) == {}
    runs.keep("k1", {"a": "one", "b": "two"})
    runs.keep("k1", {"b": "other", "c": "three"})
    assert runs.begin(RUN) == {"a": "one", "b": "two", "c": "three"}
    assert runs.begin(Run("k2", "base", "", "", {})) == {}


def test_scores_belong_to_one_key_and_one_family():
    for key, family in (("k1", "fam"), ("k2", "fam"), ("k3", "other")):
        runs.begin(Run(key, "merge", family, f"recipe of {key}", {"probes": "town"}))
    runs.finish("k1", {"mean": 0.5}, {"a": "pass"})
    runs.finish("k3", {"mean": 0.6}, {"a": "broken"})
    assert [(run.key, run.scores, run.outcomes, run.recipe) for run in runs.tried("fam")] == [
        ("k1", {"mean": 0.5}, {"a": "pass"}, "recipe of k1")
    ]  # k2 is not finished
    found = runs.find("k3")
    assert found
    assert found.scores == {"mean": 0.6}
    assert found.began.endswith("Z")
    assert runs.find("nobody") is None


def test_answers_of_a_run_that_nobody_began_are_refused():
    runs.begin(RUN)
    with pytest.raises(UserError, match="FOREIGN KEY"):
        runs.keep("unknown", {"a": "one"})


def _keep_many(start: int) -> None:
    runs.begin(RUN)
    for i in range(start, start + 40):
        runs.keep("k1", {f"p{j}": f"{j}" for j in range(i, i + 3)})


def test_two_processes_at_one_run_keep_each_answer_once():
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_keep_many, args=(start,)) for start in (0, 20)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert runs.begin(RUN) == {f"p{i}": f"{i}" for i in range(62)}


def _die_inside() -> None:
    with runs._database() as db:
        db.execute("INSERT INTO answers VALUES ('k1', 'half', 'a batch')")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_inside_a_batch_leaves_none_of_it():
    runs.begin(RUN)
    process = multiprocessing.get_context("spawn").Process(target=_die_inside)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert runs.begin(RUN) == {}
    runs.keep("k1", {"half": "whole"})
    assert runs.begin(RUN) == {"half": "whole"}


def test_an_older_file_is_taken_along(home: Path, monkeypatch: pytest.MonkeyPatch):
    runs.begin(RUN)
    runs.keep("k1", {"a": "one"})
    monkeypatch.setattr(runs, "MIGRATIONS", (*runs.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN note TEXT",)))
    assert runs.begin(RUN) == {"a": "one"}
    with sqlite3.connect(home / "runs.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(runs.MIGRATIONS),)
        assert db.execute("SELECT note FROM runs").fetchall() == [(None,)]


def test_a_voter_votes_once_on_a_question_and_a_pair_whatever_the_sides(home: Path):
    assert runs.cast("fam", "me", "Why?", Vote("b", "a", "left"))
    assert not runs.cast("fam", "me", "Why?", Vote("a", "b", "left"))
    assert runs.cast("fam", "you", "Why?", Vote("a", "b", "tie"))
    assert runs.cast("fam", "me", "What?", Vote("a", "b", "left"))
    assert runs.cast("other", "me", "Why?", Vote("a", "c", "bad"))
    assert sorted(runs.votes("fam"), key=str) == [
        Vote("a", "b", "left"), Vote("a", "b", "right"), Vote("a", "b", "tie")
    ]  # fmt: skip
    assert runs.votes("other") == [Vote("a", "c", "bad")]
    assert b"Why?" not in (home / "runs.db").read_bytes()


def test_a_newer_file_is_left_alone(home: Path):
    runs.begin(RUN)
    with sqlite3.connect(home / "runs.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer Mergescope wrote this file"):
        runs.begin(RUN)


def test_a_file_that_is_no_database_is_a_plain_error(home: Path):
    home.mkdir()
    (home / "runs.db").write_text("no database, but long enough to have a header of some sort" * 20)
    with pytest.raises(UserError, match="answers cannot be kept here") as caught:
        runs.begin(RUN)
    assert str(home / "runs.db") in str(caught.value)


def test_a_folder_that_cannot_be_made_is_a_plain_error(home: Path):
    home.write_text("a file stands where the folder should")
    with pytest.raises(UserError, match="answers cannot be kept here"):
        runs.begin(RUN)
