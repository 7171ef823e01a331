"""Writing a merge: whole or not at all, the same bytes every time, and nothing of others touched."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merging import shards, writer
from merging.companions import without_paths
from merging.engine import merged_tensors
from merging.errors import UserError
from merging.events import Finished, Notice, ShardWritten, Started, TensorDone
from merging.plan import make_plan
from merging.recipe import parse_recipe
from merging.tensor_plan import TensorPlan
from tests.forked import forked

RECIPE = """
name: pico
merge_method: task_arithmetic
base_model: base
models:
- model: helpful
- model: honest
  parameters: {weight: 0.5}
"""
SMALL = 20_000  # bytes a shard: several shards of a pico model


def plan_in(folder, text=RECIPE):
    return make_plan(parse_recipe(text, folder))


def write(plan, out, **options):
    return list(writer.write(plan, out, lambda skip: merged_tensors(plan, skip=skip), **options))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors_in(folder):
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


# What is written


def test_one_shard_is_one_file_without_index(family):
    plan = plan_in(family)
    events = write(plan, family / "out")
    assert sorted(contents(family / "out")) == [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "mergescope.json",
        "mergescope.yml", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]  # fmt: skip
    found, expected = tensors_in(family / "out"), dict(merged_tensors(plan))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert isinstance(events[0], Started)
    assert events[0].n_bytes == sum(tensor.nbytes for tensor in expected.values())
    assert [event.done for event in events if isinstance(event, TensorDone)] == list(range(1, 22))
    assert events[-1] == Finished(str(family / "out"), plan.digest, 21, events[-1].seconds)


def test_several_shards_have_an_index(family):
    plan = plan_in(family)
    events = write(plan, family / "out", max_shard_bytes=SMALL)
    shards = [event.file for event in events if isinstance(event, ShardWritten)]
    assert shards == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = json.loads((family / "out" / "model.safetensors.index.json").read_text())
    found = tensors_in(family / "out")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    for name, file in index["weight_map"].items():
        assert name in load_file(family / "out" / file)
    write(plan, family / "one")
    one = tensors_in(family / "one")
    assert list(index["weight_map"]) == [tensor.name for tensor in plan.tensors]
    assert all(torch.equal(one[name], found[name]) for name in one)


def test_shards_are_filled_in_order_and_a_large_tensor_stands_alone():
    tensors = tuple(
        TensorPlan(name, (size,), torch.float32, "merge", 0.0, (), {}, False, name, ())
        for name, size in (("a", 2), ("b", 1), ("c", 9), ("d", 1), ("e", 2))
    )
    found = shards.split(tensors, limit=12)
    assert [[tensor.name for tensor in shard.tensors] for shard in found] == [["a", "b"], ["c"], ["d", "e"]]
    assert [shard.n_bytes for shard in found] == [12, 36, 12]


def test_integers_are_copied_and_every_tensor_is_aligned(family):
    for name in ("base", "helpful", "honest"):
        path = family / name / "model.safetensors"
        save_file({**load_file(path), "a.table": torch.arange(3, dtype=torch.uint8), "z.step": torch.tensor(7)}, path)
    write(plan_in(family, RECIPE + "dtype: float32\n"), family / "out")
    found = tensors_in(family / "out")
    assert found["a.table"].tolist() == [0, 1, 2]
    assert found["z.step"].item() == 7
    assert found["lm_head.weight"].dtype == torch.float32


def test_transformers_loads_the_result(family):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plan = plan_in(family)
    write(plan, family / "out", max_shard_bytes=SMALL)
    model, info = AutoModelForCausalLM.from_pretrained(family / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(model.lm_head.weight, dict(merged_tensors(plan))["lm_head.weight"])
    assert AutoTokenizer.from_pretrained(family / "out").decode([5, 6]) == "w5 w6"


# The files beside the weights


def test_config_changes_in_dtype_only(family):
    write(plan_in(family, RECIPE + "dtype: float32\nout_dtype: float16\n"), family / "out")
    before, after = (json.loads((family / name / "config.json").read_text()) for name in ("base", "out"))
    assert after == {**before, "torch_dtype": "float16"}
    assert tensors_in(family / "out")["lm_head.weight"].dtype == torch.float16


def test_code_is_not_taken_along(family):
    config = json.loads((family / "base" / "config.json").read_text())
    (family / "base" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Model"}}))
    (family / "base" / "own.py").write_text("raise SystemExit")
    events = write(plan_in(family), family / "out")
    assert "own.py" not in contents(family / "out")
    assert "auto_map" not in json.loads((family / "out" / "config.json").read_text())
    assert any("own code" in event.text for event in events if isinstance(event, Notice))


def test_the_tokenizer_of_an_expert_is_taken_when_asked_for(family):
    (family / "honest" / "chat_template.jinja").write_text("honest {{ messages }}")
    write(plan_in(family, RECIPE + "tokenizer_source: honest\n"), family / "out")
    assert (family / "out" / "chat_template.jinja").read_text() == "honest {{ messages }}"


def test_a_chat_template_in_the_recipe_is_written(family):
    write(plan_in(family, RECIPE + "chat_template: 'Q: {{ messages[-1].content }}'\n"), family / "out")
    assert (family / "out" / "chat_template.jinja").read_text() == "Q: {{ messages[-1].content }}"
    with pytest.raises(UserError, match="not a chat template"):
        write(plan_in(family, RECIPE + "chat_template: chatmal\n"), family / "out2")


def test_no_path_of_this_machine_is_written(family):
    text = RECIPE.replace("- model: helpful", f"- model: {family}/helpful").replace(": base", f": {family}/base")
    write(plan_in(family, text), family / "out")
    for name, data in contents(family / "out").items():
        assert str(family).encode() not in data, name
    card = (family / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == ["base", "helpful", "honest"]
    assert front["tags"] == ["merge", "mergekit", "mergescope"]
    assert parse_recipe((family / "out" / "mergescope.yml").read_text(), family).base == "base"


def test_folders_of_one_name_stay_apart():
    recipe = parse_recipe(
        "merge_method: ties\nbase_model: /m/base\nmodels: [{model: /runs/1/final}, {model: /runs/2/final}]", Path()
    )
    short = without_paths(recipe)
    assert (short.base, *(expert.model for expert in short.experts)) == ("m/base", "1/final", "2/final")


# Nothing of others is touched


@pytest.mark.parametrize("kind", ["folder", "file", "link to nothing"])
def test_what_exists_is_never_replaced(family, kind):
    out = family / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to("nowhere")
    with pytest.raises(UserError) as raised:
        write(plan_in(family), out)
    assert raised.value.code == "E_OUT_EXISTS"
    assert os.path.lexists(out)
    assert kind != "file" or out.read_text() == "mine"


@pytest.mark.parametrize("place", ["base", "helpful/merged", ".", "link/merged"])
def test_out_lies_apart_from_every_source(family, place):
    (family / "link").symlink_to("honest")
    before = {path: path.read_bytes() for path in family.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as raised:
        write(plan_in(family), family / place)
    assert raised.value.code == "E_OUT_IS_SOURCE"
    assert before == {path: path.read_bytes() for path in family.rglob("*") if path.is_file()}


def test_a_folder_that_only_looks_like_remains_is_left_alone(family):
    (family / ".out.partial").mkdir()
    (family / ".out.partial" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something else is there"):
        write(plan_in(family), family / "out")
    assert (family / ".out.partial" / "letter.txt").read_text() == "dear"


def test_two_merges_to_one_place(family):
    plan = plan_in(family)
    first = writer.write(plan, family / "out", lambda skip: merged_tensors(plan, skip=skip))
    next(first)
    with pytest.raises(UserError) as raised:
        write(plan, family / "out")
    assert raised.value.code == "E_BUSY"
    assert isinstance(list(first)[-1], Finished)


# Stopped, damaged, full


class StoppedError(Exception):
    pass


def stop_after(plan, out, n):
    """A merge whose computation ends by an error after n tensors, as by a kill."""

    def tensors(skip):
        for i, item in enumerate(merged_tensors(plan, skip=skip)):
            if i == n:
                raise StoppedError
            yield item

    with pytest.raises(StoppedError):
        list(writer.write(plan, out, tensors, max_shard_bytes=SMALL))
    assert not out.exists()


def test_resuming_gives_the_bytes_of_one_run_and_computes_the_rest_only(family):
    plan = plan_in(family)
    write(plan, family / "whole", max_shard_bytes=SMALL)
    stop_after(plan, family / "out", 12)
    asked = []

    def tensors(skip):
        for name, tensor in merged_tensors(plan, skip=skip):
            asked.append(name)
            yield name, tensor

    events = list(writer.write(plan, family / "out", tensors, resume=True, max_shard_bytes=SMALL))
    assert any("1 of 3 shards" in event.text for event in events if isinstance(event, Notice))
    assert 0 < len(asked) < 21
    whole, resumed = contents(family / "whole"), contents(family / "out")
    assert resumed == whole


def test_without_resume_the_remains_are_replaced(family):
    plan = plan_in(family)
    stop_after(plan, family / "out", 12)
    write(plan, family / "out")
    assert "model-00001-of-00003.safetensors" not in contents(family / "out")
    assert not (family / ".out.partial").exists()


def test_a_damaged_shard_is_not_resumed(family):
    plan = plan_in(family)
    stop_after(plan, family / "out", 12)
    path = family / ".out.partial" / "model-00001-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    write(plan, family / "out", resume=True, max_shard_bytes=SMALL)
    expected = dict(merged_tensors(plan))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors_in(family / "out").items())


def test_remains_of_another_recipe_are_not_resumed(family):
    stop_after(plan_in(family), family / "out", 12)
    plan = plan_in(family, RECIPE.replace("0.5", "0.25"))
    write(plan, family / "out", resume=True, max_shard_bytes=SMALL)
    expected = dict(merged_tensors(plan))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors_in(family / "out").items())


def test_too_little_disk_is_told_before_the_start(family, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match=r"needs 0\.1 MB, and 0\.0 MB are free"):
        write(plan_in(family), family / "out")
    assert not (family / ".out.partial").exists()


@pytest.mark.parametrize("limit", [100, 3_000, 19_000])
def test_a_full_disk_midway_leaves_no_out_and_can_be_resumed(family, limit):
    """A file size limit stands in for the full disk: the same call fails with its own number."""
    plan = plan_in(family)
    write(plan, family / "whole", max_shard_bytes=SMALL)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match=r"the disk is full.*--resume") as raised:
            write(plan, family / "out", max_shard_bytes=SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.code == "E_DISK_FULL"
    assert not (family / "out").exists()
    write(plan, family / "out", resume=True, max_shard_bytes=SMALL)
    whole, resumed = contents(family / "whole"), contents(family / "out")
    assert all(resumed[name] == whole[name] for name in whole)


@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "mkdir"])
def test_whichever_call_fails_out_is_whole_or_absent(family, monkeypatch, call):
    plan = plan_in(family)
    target = os if call == "fsync" else Path
    real = getattr(target, call)
    for n in range(1, 99):
        count = 0

        def failing(*args, _n=n, **options):
            nonlocal count
            count += 1
            if count == _n:
                raise OSError(errno.EIO, "Input/output error")
            return real(*args, **options)

        monkeypatch.setattr(target, call, failing)
        out, problem = family / f"out{n}", None
        try:
            write(plan, out, max_shard_bytes=SMALL)
        except UserError as error:
            problem = error
        monkeypatch.setattr(target, call, real)
        if problem:
            assert problem.code == "E_WRITE"
            assert not out.exists()
        else:
            assert len(tensors_in(out)) == 21
        if count < n:
            break
    assert n > 1


def test_a_killed_merge_never_blocks_the_next(family):
    plan = plan_in(family)

    def halted(skip):
        for i, item in enumerate(merged_tensors(plan, skip=skip)):
            if i == 12:
                print("now")
                time.sleep(60)
            yield item

    process, said = forked(lambda: list(writer.write(plan, family / "out", halted, max_shard_bytes=SMALL)))
    with said:
        assert said.readline() == "now\n"
    with pytest.raises(UserError) as raised:
        write(plan, family / "out", max_shard_bytes=SMALL)
    assert raised.value.code == "E_BUSY"
    process.kill()
    process.join()
    assert not (family / "out").exists()
    shutil.copytree(family / ".out.partial", family / ".again.partial")
    write(plan, family / "out", resume=True, max_shard_bytes=SMALL)
    write(plan, family / "again", max_shard_bytes=SMALL)
    out, again = contents(family / "out"), contents(family / "again")
    assert all(out[name] == again[name] for name in out)


def test_killed_at_any_barrier_out_is_whole_or_absent(family):
    """A child process dies at its n-th sync, rename or opened file, for every n until it lives."""
    plan = plan_in(family)
    merged = list(merged_tensors(plan))
    places = ((os, "fsync"), (os, "fstat"), (Path, "open"), (Path, "replace"), (Path, "rename"), (Path, "unlink"))

    def tensors(skip):
        return iter([(name, tensor) for name, tensor in merged if name not in skip])

    def die_at(n, out):
        count = 0

        def counted(real):
            def call(*args, **options):
                nonlocal count
                count += 1
                if count == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return call

        for owner, name in places:
            setattr(owner, name, counted(getattr(owner, name)))
        list(writer.write(plan, out, tensors, resume=True, max_shard_bytes=SMALL))

    write(plan, family / "whole", max_shard_bytes=SMALL)
    whole = contents(family / "whole")
    for n in range(1, 999):
        out = family / f"out{n % 2}"  # each second run starts on the remains of the last but one
        shutil.rmtree(out, ignore_errors=True)
        child = os.fork()
        if child == 0:
            try:
                die_at(n, out)
                os._exit(0)
            finally:  # never back into pytest
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if out.exists():
            found = contents(out)
            assert all(found[name] == whole[name] for name in whole), n
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert n > 20


# Weights that are no numbers


def test_a_source_with_nan_is_named(family):
    path = family / "honest" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, path)
    with pytest.raises(UserError) as raised:
        write(plan_in(family), family / "out")
    assert raised.value.code == "E_NOT_FINITE"
    assert raised.value.where == "honest: model.layers.1.mlp.up_proj.weight"
    assert "1 of its 2,048 weights are no finite numbers, the first at [3, 5]" in raised.value.what
    assert sorted(path.name for path in family.iterdir()) == ["base", "harmless", "helpful", "honest"]


def test_a_number_too_large_for_the_dtype_is_named(family):
    text = RECIPE.replace("weight: 0.5", "weight: 900000") + "dtype: float16\n"
    with pytest.raises(UserError, match="too large for F16"):
        write(plan_in(family, text), family / "out")
    assert not (family / "out").exists()


def test_the_lock_is_held_while_writing_only(family):
    plan = plan_in(family)
    events = writer.write(plan, family / "out", lambda skip: merged_tensors(plan, skip=skip))
    next(events)
    events.close()
    begun = time.monotonic()
    with (family / ".out.partial" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert time.monotonic() - begun < 1
