"""The Hub over real HTTP, a fake one on loopback: search, pins, checks from headers, downloads and their faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from merging.__main__ import main
from merging.download import download
from merging.errors import UserError
from merging.events import Downloaded, Downloading, DownloadStarted
from merging.hub import Found, Hub, listing, search
from merging.hub_cache import local_model
from merging.models import open_model
from merging.pins import missing, pinned
from merging.plan import check, make_plan
from merging.recipe import load_recipe, parse_recipe
from tests.fake_hub import FakeHub
from tests.pico import make_family

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
merge_method: task_arithmetic
base_model: org/base
models:
- model: org/helpful
- model: org/honest@v1
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    found = make_family(tmp_path_factory.mktemp("models"), experts=2, tokenizer=True, shards=2)
    (found["base"] / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (found["base"] / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (found["base"] / "modeling.py").write_text("raise SystemExit")
    return found


@pytest.fixture
def fake(models, fake_hub):
    for i, (name, folder) in enumerate(models.items()):
        fake_hub.add(f"org/{name}", folder, downloads=10 * i)
    fake_hub.repos["org/honest"].refs["v1"] = fake_hub.repos["org/honest"].head
    return fake_hub


def weights_served(fake: FakeHub) -> int:
    return sum(n for name, n in fake.served.items() if name.endswith(".safetensors"))


def header_bytes(folder: Path) -> int:
    return sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in folder.glob("*.safetensors"))


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_a_search_lists_the_most_downloaded_first(fake):
    fake.repos["org/honest"].gated = True
    assert search("ORG/ho", 5, Hub(endpoint=fake.url)) == [Found("org/honest", 20, 3, True, 2000)]
    assert [found.id for found in search("org", 2)] == ["org/honest", "org/helpful"]
    assert search("nothing like it") == []
    assert "pipeline_tag=text-generation&filter=safetensors" in fake.requests[0]


def test_a_revision_is_pinned_to_its_commit(fake):
    first = fake.repos["org/honest"].head
    assert listing("org/honest").commit == listing("org/honest@v1").commit == first
    fake.repos["org/honest"].move({"config.json": b"{}"})
    assert listing("org/honest@v1").commit == first
    assert listing("org/honest").commit == fake.repos["org/honest"].head != first
    with pytest.raises(UserError, match=r"org/honest@v2: the model has no revision v2\."):
        listing("org/honest@v2")
    with pytest.raises(UserError, match="there is no such model on the Hub, or it is private"):
        listing("org/nothing")
    with pytest.raises(UserError, match="not the id of a Hub model"):
        listing("org/honest@../../x")


def test_a_recipe_is_checked_before_any_weight_is_fetched(fake, models):
    checked = check(parse_recipe(RECIPE, Path()), Hub())
    assert checked.problems == ()
    assert weights_served(fake) == sum(map(header_bytes, models.values()))
    plan = checked.plan
    assert plan
    assert (plan.base.commit, plan.base.absent is None) == (fake.repos["org/base"].head, False)
    assert plan.estimate.download_bytes == sum(model.bytes_to_download for model in (plan.base, *plan.experts))
    assert plan.estimate.download_bytes > sum(map(weight_bytes, models.values()))
    assert (plan.base.folder / "README.md").read_text().startswith("---\nlicense: apache-2.0")
    assert len({plan.base.fingerprint, *(model.fingerprint for model in plan.experts)}) == 3
    with pytest.raises(UserError, match=r"only the headers of this model are on this machine.*download org/base"):
        plan.base.read("lm_head.weight")
    served = weights_served(fake)
    n_requests = len(fake.requests)
    check(parse_recipe(RECIPE, Path()), Hub())
    assert (weights_served(fake), len(fake.requests)) == (served, n_requests)  # a second check asks nobody


def test_every_problem_of_hub_models_is_listed_at_once(fake):
    fake.repos["org/helpful"].files = {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"}
    header = fake.repos["org/base"].files["model-00001-of-00002.safetensors"]
    fake.repos["org/base"].files["model-00001-of-00002.safetensors"] = header[:-4]
    checked = check(parse_recipe(RECIPE.replace("org/honest@v1", "org/nobody"), Path()), Hub())
    assert [problem.code for problem in checked.problems] == ["E_TRUNCATED", "E_PICKLE_REFUSED", "E_MODEL_MISSING"]


def test_without_a_hub_nothing_is_asked(fake):
    checked = check(parse_recipe(RECIPE, Path()))
    assert [problem.code for problem in checked.problems] == ["E_MODEL_MISSING"] * 3
    assert fake.requests == []


def test_a_download_brings_only_the_models_own_files(fake, models):
    events = list(download("org/base"))
    started, finished = events[0], events[-1]
    assert isinstance(started, DownloadStarted)
    assert isinstance(finished, Downloaded)
    index = len(fake.repos["org/base"].files["model.safetensors.index.json"])  # is read first, for the shards' names
    assert started.n_bytes == finished.n_bytes + index == max(e.done for e in events if isinstance(e, Downloading))
    folder = Path(finished.folder)
    assert (started.n_kept, folder.name) == (index, fake.repos["org/base"].head)
    names = {path.name for path in models["base"].iterdir()} - {"pytorch_model.bin", "modeling.py"}
    assert {path.name for path in folder.iterdir()} == names
    assert all((folder / name).read_bytes() == (models["base"] / name).read_bytes() for name in names)
    assert not any(".bin" in name or ".py" in name for name in fake.served)
    model = open_model("org/base", Path())
    assert (model.absent, model.bytes_to_download, model.commit) == (None, 0, folder.name)
    here = open_model(str(models["base"]), Path())
    assert torch.equal(model.read("lm_head.weight"), here.read("lm_head.weight"))
    assert model.fingerprint == here.fingerprint


def test_the_hub_library_finds_what_was_downloaded(fake):
    from huggingface_hub import hf_hub_download, scan_cache_dir

    *_, finished = download("org/base")
    n_requests = len(fake.requests)
    path = hf_hub_download("org/base", "config.json", revision=fake.repos["org/base"].head)
    assert Path(path).parent == Path(finished.folder)
    assert len(fake.requests) == n_requests
    assert [repo.repo_id for repo in scan_cache_dir().repos] == ["org/base"]
    assert scan_cache_dir().warnings == []


def test_a_cut_connection_goes_on_where_it_was(fake, models):
    fake.cut_after, fake.cuts = 8192, 2
    *_, finished = download("org/base")
    assert isinstance(finished, Downloaded)
    assert fake.cuts == 0
    assert weights_served(fake) == weight_bytes(models["base"])


def test_a_stopped_download_keeps_what_is_there(fake, models):
    fake.pace = 0.05
    events = download("org/base")
    last = next(e for e in events if isinstance(e, Downloading) and e.file.endswith(".safetensors") and e.done)
    begun = time.monotonic()
    events.close()
    assert time.monotonic() - begun < 1
    assert local_model("org/base") is None
    assert last.done < last.total
    fake.pace = 0
    first = weights_served(fake)
    started, *_, finished = download("org/base")
    assert started.n_kept > 0
    assert finished.n_bytes == started.n_bytes - started.n_kept
    assert weights_served(fake) - first < weight_bytes(models["base"])
    assert open_model("org/base", Path()).read("model.norm.weight").shape == (32,)


def test_a_silent_server_does_not_keep_a_stop_waiting(fake):
    fake.pace = 30
    events = download("org/base")
    while not fake.served.get("org/base/model-00001-of-00002.safetensors"):
        next(events)
    begun = time.monotonic()
    events.close()
    assert time.monotonic() - begun < 1


def test_a_damaged_file_is_removed_and_named(fake):
    file = "model-00002-of-00002.safetensors"
    good = fake.repos["org/base"].files[file]
    fake.repos["org/base"].lies[file] = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(UserError, match=rf"org/base/{file}: what came is not what the Hub lists: sha256") as caught:
        list(download("org/base"))
    assert caught.value.code == "E_DAMAGED"
    assert local_model("org/base") is None
    fake.repos["org/base"].lies.clear()
    before = weights_served(fake)
    assert isinstance(list(download("org/base"))[-1], Downloaded)
    assert weights_served(fake) - before == len(good)  # the sound files were kept


def test_small_files_are_held_against_gits_hash(fake):
    fake.repos["org/base"].lies["config.json"] = fake.repos["org/base"].files["config.json"].replace(b"96", b"97")
    with pytest.raises(UserError, match=r"org/base/config.json: what came is not what the Hub lists: git hash"):
        list(download("org/base"))


def test_a_gated_model_needs_the_visitors_own_token(fake):
    fake.repos["org/base"].gated = True
    licence = rf"gated\. Accept its licence at {fake.url}/org/base and give a token"
    with pytest.raises(UserError, match=licence) as refused:
        list(download("org/base"))
    assert refused.value.code == "E_GATED"
    other = "hf_" + "d" * 30
    with pytest.raises(UserError, match="with the account of your token") as refused:
        list(download("org/base", hub=Hub(token=other)))
    assert other not in f"{refused.value!r}{refused.value.__context__}{Hub(token=other)!r}"
    assert isinstance(list(download("org/base", hub=Hub(token=fake.token)))[-1], Downloaded)


def test_no_token_of_the_machine_goes_out_unasked(fake, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", fake.token)
    list(download("org/base"))
    search("org")
    assert fake.authorized == []


def test_a_token_that_cannot_be_one_is_not_quoted(fake):
    with pytest.raises(UserError, match="characters that no token has") as caught:
        listing("org/base", Hub(token="hf_secret\nX-Evil: 1"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "the Hub does not accept the token"),
        (403, {}, "the token has no right"),
        (404, {"X-Error-Code": "RepoNotFound"}, "no such model on the Hub"),
        (429, {"Retry-After": "17"}, "asked too often. Try again in 17 seconds"),
        (500, {}, r"a fault of its own \(500\)"),
        (503, {}, r"a fault of its own \(503\)"),
        (418, {}, "refused with code 418"),
        (200, {}, "the answer is not one of a Hub"),
    ],
)
def test_each_refusal_has_its_own_words_and_no_storm(fake, status, headers, words):
    fake.refuse = [(status, headers)]
    with pytest.raises(UserError, match=words):
        listing("org/base")
    assert len(fake.requests) == 1


def test_a_pause_the_hub_asks_for_is_kept(fake):
    started = download("org/base")
    next(started)
    fake.refuse = [(429, {"Retry-After": "1"})]
    begun = time.monotonic()
    assert isinstance(list(started)[-1], Downloaded)
    assert time.monotonic() - begun >= 1


def test_a_hub_that_cannot_be_reached(fake, family, monkeypatch):
    nowhere = Hub(endpoint="http://127.0.0.1:9")
    with pytest.raises(UserError, match="the Hub cannot be reached"):
        search("org", hub=nowhere)
    checked = check(parse_recipe(RECIPE, Path()), nowhere)
    assert {problem.code for problem in checked.problems} == {"E_MODEL_MISSING"}
    assert "no such folder, no such model in this machine's Hub cache, and the Hub cannot be reached" in str(
        checked.problems[0]
    )
    for name in ("base", "helpful", "honest"):
        list(download(f"org/{name}"))
    list(download("org/honest@v1"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    n_requests = len(fake.requests)
    assert check(parse_recipe(RECIPE, Path()), Hub()).problems == ()
    local = RECIPE.replace("org/", "").replace("@v1", "")
    assert check(parse_recipe(local, family), Hub()).problems == ()
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        listing("org/other")
    assert len(fake.requests) == n_requests


def test_a_branch_that_moves_meanwhile_changes_nothing(fake, tmp_path):
    recipe = parse_recipe(RECIPE, tmp_path)
    plan = make_plan(recipe, Hub())
    first = fake.repos["org/base"].head
    fake.repos["org/base"].move({"config.json": b"{}"})
    fixed = pinned(recipe)
    assert (fixed.base, recipe.base) == (f"org/base@{first}", "org/base")
    assert missing(fixed)[0] == f"org/base@{first}"
    for source in missing(fixed):
        list(download(source))
    assert missing(recipe) == missing(fixed) == []
    assert make_plan(recipe).base.commit == plan.base.commit == first


def test_merge_downloads_checks_and_names_the_commits(fake, models, tmp_path, capsys):
    (tmp_path / "recipe.yml").write_text(RECIPE)
    assert main(["merge", str(tmp_path / "recipe.yml"), str(tmp_path / "out"), "--json", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds.count("downloaded"), kinds[-1]) == ("download_started", 3, "finished")
    commits = {name: fake.repos[f"org/{name}"].head for name in models}
    written = load_recipe(tmp_path / "out" / "mergescope.yml")
    assert written.base == f"org/base@{commits['base']}"
    assert [expert.model for expert in written.experts] == [
        f"org/helpful@{commits['helpful']}", f"org/honest@{commits['honest']}"]  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text()
    assert commits["helpful"] in card
    assert "- org/helpful\n" in card
    manifest = (tmp_path / "out" / "mergescope.json").read_text()
    assert commits["base"] in manifest


def test_merge_finds_problems_before_it_downloads(fake, models, tmp_path, capsys):
    (tmp_path / "recipe.yml").write_text(RECIPE + "parameters: {lambda: much}\n")
    assert main(["merge", str(tmp_path / "recipe.yml"), str(tmp_path / "out")]) == 2
    assert weights_served(fake) <= sum(map(header_bytes, models.values()))
    assert local_model("org/base") is None or missing(parse_recipe(RECIPE, tmp_path))
    assert "lambda" in capsys.readouterr().err


def test_merge_downloads_nothing_for_a_place_that_is_taken(fake, models, tmp_path, capsys):
    (tmp_path / "recipe.yml").write_text(RECIPE)
    (tmp_path / "out").mkdir()
    assert main(["merge", str(tmp_path / "recipe.yml"), str(tmp_path / "out")]) == 2
    assert "this exists already" in capsys.readouterr().err
    assert weights_served(fake) == sum(map(header_bytes, models.values()))


def test_a_killed_download_is_taken_up_by_the_next(fake, models, tmp_path, capsys):
    fake.pace = 0.05
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": fake.url, "HF_HOME": str(tmp_path / "hf"),
                   "HF_TOKEN": fake.token}  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "merging", "download", "org/base", "--json"], cwd=ROOT,
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "downloading" and lines[-1].get("file", "").endswith("tensors") and len(lines) > 4:
            break
    process.send_signal(signal.SIGKILL)
    rest, err = process.communicate()
    assert fake.authorized
    assert fake.token not in f"{lines}{rest}{err}"
    fake.pace, before = 0, weights_served(fake)
    assert main(["download", "org/base", "--json"]) == 0
    started = json.loads(capsys.readouterr().out.splitlines()[0])
    assert 0 < started["n_kept"] < started["n_bytes"]
    assert weights_served(fake) - before < weight_bytes(models["base"])
    written = [path for path in (tmp_path / "hf").rglob("*") if path.is_file()]
    assert not [path for path in written if fake.token.encode() in path.read_bytes()]
