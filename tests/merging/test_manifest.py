"""An export's manifest: what it says, and every way in which a folder may differ from it."""

import hashlib
import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging import writer
from merging.__main__ import main
from merging.engine import merge, merged_tensors
from merging.errors import UserError
from merging.manifest import VERSION, verify
from merging.plan import make_plan
from merging.recipe import parse_recipe
from tests.pico import write_model

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
merge_method: task_arithmetic
base_model: base
models:
- model: helpful
- model: honest
"""


@pytest.fixture
def out(family):
    plan = make_plan(parse_recipe(RECIPE, family))
    list(writer.write(plan, family / "out", lambda skip: merged_tensors(plan, skip=skip), max_shard_bytes=20_000))
    return family / "out"


def wrong(out: Path) -> list[str]:
    with pytest.raises(UserError) as raised:
        verify(out)
    return [f"{problem.where}: {problem.what}" for problem in raised.value.parts or (raised.value,)]


def test_what_the_manifest_says(out):
    manifest = json.loads((out / "mergescope.json").read_text())
    assert [(one["model"], one["commit"]) for one in manifest["sources"]] == [
        ("base", None), ("helpful", None), ("honest", None)]  # fmt: skip
    # two embeddings of 96 x 32; a layer has 2 of 32 x 32, 2 of 16 x 32, 3 of 64 x 32 and 2 norms; a last norm
    n = 2 * 96 * 32 + 2 * (2 * 1024 + 2 * 512 + 3 * 2048 + 64) + 32
    assert manifest["parameters"] == {"base": n, "merge": n}
    assert manifest["libraries"].keys() == {"python", "torch", "numpy"}
    beside = {path.name for path in out.iterdir()} - {"mergescope.json"}
    assert manifest["files"].keys() | manifest["shards"].keys() == beside
    assert f"{n:,} parameters, as many as the base" in (out / "README.md").read_text()


def test_a_file_in_another_order_than_the_plan_has_its_own_hash(family):
    for name in ("base", "helpful", "honest"):  # wide items come first in a file, and here the plan has one amid others
        tensors = load_file(family / name / "model.safetensors") | {"model.zz_positions": torch.arange(5)}
        (family / name / "model.safetensors").unlink()
        write_model(family / name, tensors, json.loads((family / name / "config.json").read_text()), shards=2)
    list(merge(make_plan(parse_recipe(RECIPE, family)), family / "out"))
    found = json.loads((family / "out" / "mergescope.json").read_text())["shards"]["model.safetensors"]
    data = (family / "out" / "model.safetensors").read_bytes()
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert load_file(family / "out" / "model.safetensors")["model.zz_positions"].tolist() == [0, 1, 2, 3, 4]


def test_the_version_is_the_projects():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_a_hub_snapshots_commit_is_written(family):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = family / "models--town--base" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    shutil.move(family / "base", snapshot)
    (family / "base").symlink_to(snapshot)
    plan = make_plan(parse_recipe(RECIPE.replace("base_model: base", f"base_model: {snapshot}"), family))
    list(writer.write(plan, family / "out", lambda skip: merged_tensors(plan, skip=skip)))
    manifest = (family / "out" / "mergescope.json").read_text()
    assert json.loads(manifest)["sources"][0]["commit"] == commit
    assert str(family) not in manifest
    assert f"| {commit} |" in (family / "out" / "README.md").read_text()


def test_a_whole_folder_is_verified_and_its_digest_computed_again(out):
    found = verify(out)
    assert (found.n_files, found.sources) == (len(list(out.iterdir())) - 1, "same")
    moved = out.parent / "far" / "out"
    moved.parent.mkdir()
    out.rename(moved)
    assert verify(moved).sources == "none"


@pytest.mark.parametrize(
    "more",
    [
        "tokenizer_source: {0}/honest\n",
        "tokenizer: {{source: {0}/honest}}\n",
        "tokenizer: {{tokens: {{w4: {{source: {0}/honest, force: true}}}}}}\n",
        "locks: [{{tensors: '*norm*', to: {0}/honest}}]\n",
    ],
)
def test_a_digest_does_not_depend_on_how_folders_are_spelled(family, more):
    text = "merge_method: linear\nmodels: [{{model: {0}/base}}, {{model: {0}/honest}}]\n" + more
    one, two = (make_plan(parse_recipe(text.format(home), family)) for home in (family, "."))
    plain = make_plan(parse_recipe(text.removesuffix(more).format("."), family))
    assert one.digest == two.digest != plain.digest
    out = family / "out"
    list(merge(one, out))
    assert verify(out).sources == "same"


def test_changed_sources_are_told_apart_from_a_changed_export(out):
    path = out.parent / "honest" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] += 1
    save_file(tensors, path)
    assert verify(out).sources == "other"


def test_a_changed_recipe_is_found_although_every_hash_was_made_right(out):
    recipe, manifest = out / "mergescope.yml", out / "mergescope.json"
    recipe.write_text(recipe.read_text().replace("- model: honest", "- model: honest\n  parameters: {weight: 0.25}"))
    listed = json.loads(manifest.read_text())
    listed["files"]["mergescope.yml"] = {"bytes": recipe.stat().st_size,
                                         "sha256": hashlib.sha256(recipe.read_bytes()).hexdigest()}  # fmt: skip
    manifest.write_text(json.dumps(listed))
    [problem] = wrong(out)
    assert "another digest" in problem


def test_every_problem_is_listed_at_once(out):
    (out / "config.json").unlink()
    (out / "tokenizer.json").write_text("{}")
    shard = out / "model-00002-of-00003.safetensors"
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    shutil.copy(shard, out / "stray.safetensors")
    (out / "notes.txt").write_text("mine")  # no weights: left alone
    found = wrong(out)
    files = ["config.json", "tokenizer.json", "model-00002-of-00003.safetensors", "stray.safetensors"]
    assert [problem.split(": ")[0] for problem in found] == [f"out/{file}" for file in files]
    assert "missing" in found[0]
    assert "2 bytes" in found[1]
    assert "sha256" in found[2]
    assert "no part" in found[3]


def test_any_single_byte_of_any_file_is_noticed(out):
    for path in sorted(out.iterdir()):
        if path.name == "mergescope.json":
            continue
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 7)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
            assert any(path.name in problem for problem in wrong(out)), (path.name, at)
        path.write_bytes(whole)
    verify(out)


def test_an_index_that_disagrees_is_found(out):
    path, manifest = out / "model.safetensors.index.json", out / "mergescope.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors"
    path.write_text(json.dumps(index))
    listed = json.loads(manifest.read_text())
    listed["files"][path.name] = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest.write_text(json.dumps(listed))
    [problem] = wrong(out)
    assert "disagrees with the shards about model.norm.weight" in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "not one of Mergescope's"),
        ("{", "not JSON"),
        ('{"made_by": "Mergescope", "shards": {}}', "lists no files"),
        ('{"made_by": "Mergescope", "digest": "a", "sources": [], "files": {}, "shards": {"a": 7}}', "for 'a'"),
        ('{"made_by": "Mergescope", "digest": "a", "sources": [], "files": {"../base/config.json": '
         '{"bytes": 1, "sha256": "' + 64 * "0" + '"}}, "shards": {"m.safetensors": {"bytes": 1, "sha256": "'
         + 64 * "0" + '", "tensors": []}}}', "leads outside"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none(out, text, says):
    (out / "mergescope.json").write_text(text)
    assert any(says in problem for problem in wrong(out))


@pytest.mark.parametrize("place", ["nowhere", "base", "recipe.yml"])
def test_what_is_no_export_is_refused(family, capsys, place):
    (family / "recipe.yml").write_text(RECIPE)
    assert main(["verify", str(family / place)]) == 2
    assert place in capsys.readouterr().err


def test_the_command_says_what_was_checked(out, capsys):
    assert main(["verify", str(out)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"files, 0\.1 MB, all as they were written\.\nIts models give the same digest", told)
    assert main(["verify", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "verified"
    os.truncate(out / "config.json", 3)
    assert main(["verify", str(out)]) == 2
    assert "config.json: has 3 bytes" in capsys.readouterr().err
