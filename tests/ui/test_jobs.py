"""The seam for heavy work: real processes, small targets."""

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from merging.errors import UserError
from ui.jobs import Jobs, LiveWorker


def echo(connection: Connection) -> None:
    while True:
        number, request = connection.recv()
        if request == "die":
            os.kill(os.getpid(), 9)
        if request == "refuse":
            connection.send((number, UserError("E_NO", "not this one")))
        elif request != "cancel":
            connection.send((number, request))
        connection.send((number, None))


@pytest.fixture
def worker():
    made = LiveWorker(echo)
    yield made
    made.close()


def test_replies_come_back_to_their_own_request(worker: LiveWorker):
    streams = [worker.ask(f"hello {i}") for i in range(3)]
    assert [list(stream) for stream in reversed(streams)] == [["hello 2"], ["hello 1"], ["hello 0"]]


def test_a_killed_worker_gives_one_message_and_the_next_request_works(worker: LiveWorker):
    with pytest.raises(UserError, match="ended unexpectedly"):
        list(worker.ask("die"))
    assert list(worker.ask("again")) == ["again"]


def test_a_problem_ends_only_its_own_request(worker: LiveWorker):
    with pytest.raises(UserError, match="not this one"):
        list(worker.ask("refuse"))
    assert list(worker.ask("next")) == ["next"]


def start(jobs: Jobs, code: str):
    return jobs.start(jobs.new_id(), "me", "score", "{}", [("-c", code)])


def test_a_job_is_followed_to_its_end_and_read_again_after(tmp_path: Path):
    jobs = Jobs(tmp_path)
    job = start(jobs, "import json\nfor i in range(3): print(json.dumps({'event': 'asked', 'done': i}), flush=True)")
    assert [event["done"] for event in jobs.follow(job)] == [0, 1, 2]
    again = jobs.find(job.id, "me")
    assert again == job
    assert [event["done"] for event in Jobs(tmp_path).follow(job)] == [0, 1, 2]


def test_what_a_job_says_at_once_comes_at_once_and_before_its_failure(tmp_path: Path):
    jobs = Jobs(tmp_path)
    failure = '{"event": "error", "code": "E_X", "what": "no", "where": "", "kept": "", "do": ""}'
    said = 'import time; print("{}\\n{}\\n{}", flush=True); time.sleep(0.6); '
    assert list(jobs.batches(start(jobs, said + 'print("{}", flush=True)'))) == [[{}, {}, {}], [{}]]
    broken = jobs.batches(start(jobs, f"print('{{}}\\n{failure}', flush=True)"))
    assert next(broken) == [{}]
    with pytest.raises(UserError, match="no"):
        next(broken)


def test_a_job_belongs_to_its_owner(tmp_path: Path):
    jobs = Jobs(tmp_path)
    job = start(jobs, "pass")
    assert jobs.find(job.id, "you") is None
    assert jobs.find("../" + job.id, "me") is None
    assert len(job.id) == 32


def test_stop_ends_a_job_at_once(tmp_path: Path):
    jobs = Jobs(tmp_path)
    job = start(jobs, 'import time; print(\'{"event": "asked"}\', flush=True); time.sleep(60)')
    events = jobs.follow(job)
    next(events)
    began = time.monotonic()
    jobs.stop(job)
    assert list(events) == []
    assert time.monotonic() - began < 5
    assert jobs.stopped(job)


def test_a_command_that_fails_says_so(tmp_path: Path):
    jobs = Jobs(tmp_path)
    with pytest.raises(UserError, match="signal 9"):
        list(jobs.follow(start(jobs, "import os; os.kill(os.getpid(), 9)")))
    with pytest.raises(UserError, match="unexpectedly"):
        list(jobs.follow(start(jobs, "1/0")))
