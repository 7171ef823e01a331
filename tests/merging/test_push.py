"""Pushing an export to a fake Hub on loopback: private, whole or not at all, never over other files."""

import json

import pytest

from merging.__main__ import main
from merging.download import download
from merging.engine import merge
from merging.errors import UserError
from merging.events import Notice, Pushed, Uploading
from merging.hub import Hub
from merging.models import open_model
from merging.plan import make_plan
from merging.push import push
from merging.recipe import parse_recipe
from tests.fake_hub import FakeHub, Repo

RECIPE = "merge_method: linear\nmodels:\n- model: base\n- model: helpful\n"


@pytest.fixture
def out(family):
    list(merge(make_plan(parse_recipe(RECIPE, family)), family / "out", device="cpu"))
    return family / "out"


@pytest.fixture
def fake(fake_hub: FakeHub):
    return fake_hub


def test_a_push_is_private_and_comes_back_the_same(fake, out, tmp_path):
    (out / "notes.txt").write_text("mine")
    events = list(push(out, "me/merge", hub=Hub(token=fake.token)))
    assert events[0] == Notice("Left out, because the export did not write them: notes.txt.")
    assert isinstance(events[-1], Pushed)
    repo = fake.repos["me/merge"]
    assert (repo.private, events[-1].commit, events[-1].url) == (True, repo.head, f"{fake.url}/me/merge")
    names = {path.name for path in out.iterdir()} - {"notes.txt"}
    assert repo.files.keys() - {".gitattributes"} == names
    assert all(repo.files[name] == (out / name).read_bytes() for name in names)
    assert len(repo.old) == 1  # one commit
    sizes = [event.done for event in events if isinstance(event, Uploading)]
    assert sizes == sorted(sizes)
    with pytest.raises(UserError, match="there is no such model on the Hub, or it is private"):
        list(download("me/merge"))
    list(download("me/merge", hub=Hub(token=fake.token)))
    assert open_model("me/merge", tmp_path).fingerprint == open_model(str(out), tmp_path).fingerprint


def test_a_repository_with_files_is_never_touched(fake, out):
    fake.repos["me/merge"] = Repo({".gitattributes": b"", "model.safetensors": b"old"}, private=True)
    before = dict(fake.repos["me/merge"].files)
    with pytest.raises(UserError, match=r"me/merge: the repository has files already: model.safetensors") as caught:
        list(push(out, "me/merge", hub=Hub(token=fake.token)))
    assert caught.value.code == "E_REPO_EXISTS"
    assert fake.repos["me/merge"].files == before
    assert not [request for request in fake.requests if not request.startswith("GET")]


def test_an_empty_repository_must_be_as_hidden_as_asked(fake, out):
    fake.repos["me/merge"] = Repo({".gitattributes": b""}, private=False)
    with pytest.raises(UserError, match="exists already and is public"):
        list(push(out, "me/merge", hub=Hub(token=fake.token)))
    assert isinstance(list(push(out, "me/merge", hub=Hub(token=fake.token), private=False))[-1], Pushed)


def test_a_push_that_fails_leaves_the_repository_empty_and_the_next_sends_the_rest(fake, out):
    pushing = push(out, "me/merge", hub=Hub(token=fake.token))
    for event in pushing:
        if isinstance(event, Uploading) and event.file == "model.safetensors":
            fake.full = True
            break
    with pytest.raises(UserError, match=r"a fault of its own \(507\)"):
        list(pushing)
    assert fake.repos["me/merge"].files.keys() == {".gitattributes"}
    fake.full = False
    sent = len(fake.uploaded)
    assert isinstance(list(push(out, "me/merge", hub=Hub(token=fake.token)))[-1], Pushed)
    puts = [request for request in fake.requests if request.startswith("PUT")]
    assert sent > 0
    assert len(puts) == len(fake.uploaded) + 1  # only the refused one was sent twice


def test_someone_elses_files_meanwhile_are_not_overwritten(fake, out):
    pushing = push(out, "me/merge", hub=Hub(token=fake.token))
    next(pushing)
    fake.repos["me/merge"].move({"README.md": b"theirs"})
    with pytest.raises(UserError, match="made or changed by someone else"):
        list(pushing)
    assert fake.repos["me/merge"].files == {"README.md": b"theirs"}


def test_what_is_no_finished_export_is_not_pushed(fake, out, family):
    with pytest.raises(UserError, match=r"there is no mergescope\.json"):
        list(push(family / "base", "me/merge", hub=Hub(token=fake.token)))
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="its sha256 is not the one that was written"):
        list(push(out, "me/merge", hub=Hub(token=fake.token)))
    assert fake.repos == fake.uploaded == {}


def test_the_command_line_pushes_with_the_machines_token_and_never_shows_it(fake, out, monkeypatch, capsys):
    assert main(["push", str(out), "me/merge"]) == 2
    assert "a push needs a token that may write" in capsys.readouterr().err
    other = "hf_" + "d" * 30
    monkeypatch.setenv("HF_TOKEN", other)
    assert main(["push", str(out), "me/merge", "--json"]) == 2
    printed = capsys.readouterr()
    assert "the Hub does not accept the token" in printed.err
    assert other not in printed.err + printed.out
    monkeypatch.setenv("HF_TOKEN", fake.token)
    assert main(["push", str(out), "me/merge", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["private"] is True
    assert printed.err == ""
    assert fake.token not in printed.err + printed.out
    assert not [data for data in fake.repos["me/merge"].files.values() if fake.token.encode() in data]
    assert main(["push", str(out), "me/other", "--public"]) == 0
    assert f"are at {fake.url}/me/other, public, commit" in capsys.readouterr().out
    assert main(["push", str(out), "nameless"]) == 2
