"""Reading models from disk: what is taken, and that nothing damaged or dangerous is."""

import json
import os
import pickle
import random
import struct
import time

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file

from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from merging.safetensors_header import read_header
from tests.pico import make_family

TWO = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
}


def file_of(header, data=b"\0" * 11, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def with_a(**changes):
    return {**TWO, "a": {**TWO["a"], **changes}}


# Opening


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_are_read_as_the_library_reads_them(tmp_path, shards):
    folder = make_family(tmp_path, 0, shards=shards)["base"]
    model = open_checkpoint("base", tmp_path)
    expected = {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}
    assert model.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(model.read(name), tensor)
        assert model.tensors[name].shape == tensor.shape
        assert model.tensors[name].dtype == "BF16"
    assert model.config["hidden_size"] == 32


def test_opening_reads_headers_only(tmp_path):
    size = 1 << 38  # a quarter of a terabyte that is not there
    header = {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(header, b""))
    try:
        os.truncate(path, path.stat().st_size + size)
    except OSError:
        pytest.skip("this disk has no sparse files")
    begun = time.perf_counter()
    assert open_checkpoint(str(tmp_path), tmp_path).tensors["w"].shape == (size // 4,)
    assert time.perf_counter() - begun < 1


def test_a_read_tensor_is_independent_of_the_file(family):
    path = family / "base" / "model.safetensors"
    before = path.read_bytes()
    tensor = open_checkpoint("base", family).read("model.norm.weight")
    tensor.zero_()
    assert path.read_bytes() == before
    tensor = open_checkpoint("base", family).read("model.norm.weight")
    path.write_bytes(b"\0" * len(before))
    assert tensor.min() == 1


def test_a_file_cut_short_meanwhile_is_an_error_not_a_crash(family):
    model = open_checkpoint("base", family)
    os.truncate(family / "base" / "model.safetensors", 3000)
    with pytest.raises(UserError, match="became shorter"):
        [model.read(name) for name in model.tensors]


def test_the_fingerprint_is_of_the_weights(tmp_path, family):
    def fingerprint():
        return open_checkpoint("base", family).fingerprint

    before = fingerprint()
    assert before == fingerprint()
    (tmp_path / "sharded").mkdir()
    make_family(tmp_path / "sharded", 0, shards=4)
    assert open_checkpoint("sharded/base", tmp_path).fingerprint == before
    path = family / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x40")
    assert fingerprint() != before


def test_a_scalar_and_an_empty_tensor_are_read(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}, tmp_path / "model.safetensors")
    model = open_checkpoint(str(tmp_path), tmp_path)
    assert model.read("scalar").item() == 3.5
    assert model.read("empty").shape == (0, 4)
    assert len(model.fingerprint) == 64


def test_a_downloaded_snapshot_is_found_by_its_hub_id(pico_family, tmp_path, monkeypatch):
    repo = tmp_path / "models--some--model"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("c" * 40)
    snapshot = repo / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    for i, path in enumerate(pico_family["base"].iterdir()):
        (repo / "blobs" / f"{i}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{i}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert open_checkpoint("some/model", tmp_path).config["vocab_size"] == 96
    with pytest.raises(UserError, match="no such model in this machine's Hub cache"):
        open_checkpoint("some/other", tmp_path)


def test_a_models_own_code_is_noted_and_never_run(family, tmp_path):
    canary = tmp_path / "ran"
    config = json.loads((family / "base" / "config.json").read_text())
    (family / "base" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    (family / "base" / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    assert "never run" in open_checkpoint("base", family).notices[0]
    assert not canary.exists()


# Headers


@pytest.mark.parametrize("length", [0x0280, 0x013C])
def test_a_headers_length_may_look_like_a_pickle_or_a_web_page(tmp_path, length):
    text = json.dumps(TWO).encode().ljust(length)
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(11))
    assert len(read_header(tmp_path / "x.safetensors", "x")) == 2


def test_a_good_header_is_read(tmp_path):
    (tmp_path / "f").write_bytes(file_of(TWO))
    entries = read_header(tmp_path / "f", "f")
    assert [(name, e.shape, e.end - e.start) for name, e in entries.items()] == [("a", (2,), 8), ("b", (3,), 3)]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        pytest.param(b"", "E_HEADER", "empty", id="empty"),
        pytest.param(b"1234567", "E_HEADER", "too short", id="seven bytes"),
        pytest.param(struct.pack("<Q", 1 << 63) + b"{}", "E_HEADER", "claims a header", id="header of 2^63"),
        pytest.param(struct.pack("<Q", 99) + b"{}", "E_TRUNCATED", "ends inside its header", id="header cut"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "E_HEADER", "git-lfs", id="git-lfs"),
        pytest.param(b"<!doctype html><html>sign in</html>", "E_HEADER", "web page", id="web page"),
        pytest.param(b"PK\x03\x04" + b"\0" * 60, "E_HEADER", "pickle", id="zip"),
        pytest.param(b"\0" * 4096, "E_HEADER", "unfinished download", id="zeros"),
        pytest.param(file_of(b'{"a":' * 5000 + b"1" + b"}" * 5000), "E_HEADER", "nested too deeply", id="deep"),
        pytest.param(file_of(b"[1, 2, 3]"), "E_HEADER", "not safetensors", id="a list"),
        pytest.param(file_of(b'{"a": NaN}'), "E_HEADER", "NaN", id="NaN"),
        pytest.param(file_of(b'{"a": \xff}'), "E_HEADER", "UTF-8", id="not UTF-8"),
        pytest.param(file_of(b'{"\\ud800": 1}'), "E_HEADER", "UTF-8", id="half a character"),
        pytest.param(file_of(b'{"a": 1, "a": 2}'), "E_HEADER", "'a' twice", id="name twice"),
        pytest.param(file_of({**TWO, "__metadata__": {"x": {"y": 1}}}), "E_HEADER", "metadata", id="metadata not text"),
        pytest.param(file_of(with_a(dtype="F12")), "E_DTYPE", "'F12'", id="unknown dtype"),
        pytest.param(file_of(with_a(shape=[-2])), "E_SHAPE", "'a'", id="negative"),
        pytest.param(file_of(with_a(shape=[2.0])), "E_SHAPE", "'a'", id="float"),
        pytest.param(file_of(with_a(shape=[True, 2])), "E_SHAPE", "'a'", id="true"),
        pytest.param(file_of(with_a(shape=["2"])), "E_SHAPE", "'a'", id="text"),
        pytest.param(file_of(with_a(shape=[1 << 40, 1 << 40])), "E_SHAPE", "'a'", id="too many entries"),
        pytest.param(file_of(with_a(shape=[3])), "E_OFFSETS", "8 bytes where its shape needs 12", id="wrong size"),
        pytest.param(file_of(with_a(data_offsets=[0, 8.0])), "E_OFFSETS", "'a'", id="float offset"),
        pytest.param(file_of(with_a(data_offsets=[8, 0])), "E_OFFSETS", "'a'", id="backwards"),
        pytest.param(file_of(with_a(data_offsets=[3, 11])), "E_OFFSETS", "gap", id="first not 0"),
        pytest.param(file_of({**TWO, "c": TWO["a"]}), "E_OFFSETS", "overlaps", id="same bytes"),
        pytest.param(file_of(TWO, b"\0" * 12), "E_OFFSETS", "1 bytes after", id="bytes left over"),
        pytest.param(file_of(TWO, b"\0" * 10), "E_TRUNCATED", "cut short", id="last byte missing"),
    ],
)
def test_a_damaged_file_is_refused_by_what_is_wrong(tmp_path, content, code, says):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UserError, match=says) as raised:
        read_header(tmp_path / "f", "m/f")
    assert raised.value.code == code
    assert raised.value.where == "m/f"


def test_what_is_accepted_the_library_accepts_too(tmp_path):
    rng = random.Random(7)
    good = file_of({**TWO, "__metadata__": {"format": "pt"}})
    accepted = 0
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            i = rng.randrange(len(data))
            change = rng.choice(("set", "cut", "repeat"))
            if change == "set":
                data[i] = rng.choice(b'{}[]",:0129-.eE \0\xff') if i > 7 else rng.randrange(256)
            elif change == "cut":
                del data[i : i + rng.randint(1, 4)]
            else:
                data[i:i] = data[i : i + rng.randint(1, 8)]
            data = data or bytearray(b" ")
        (tmp_path / "f").write_bytes(data)
        try:
            read_header(tmp_path / "f", "f")
        except UserError:
            continue
        accepted += 1
        try:
            load_bytes(bytes(data))
        except SafetensorError as error:
            pytest.fail(f"the library refuses {bytes(data)!r}: {error}")
    assert accepted > 50


# Folders


def refused(folder, source="base"):
    with pytest.raises(UserError) as raised:
        open_checkpoint(source, folder)
    return str(raised.value)


def test_a_pickle_is_refused_and_never_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "canary"), "w")

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    assert "never opened" in refused(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_links_out_of_the_folder_are_refused(family):
    outside = family / "elsewhere.json"
    (family / "base" / "config.json").rename(outside)
    (family / "base" / "config.json").symlink_to(outside)
    assert "config.json: the file leads outside the model's folder" in refused(family)


def test_a_pipe_is_refused_without_waiting(family):
    (family / "base" / "model.safetensors").unlink()
    os.mkfifo(family / "base" / "model.safetensors")
    assert "not a plain file" in refused(family)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(x="../helpful/model.safetensors"), "not a safetensors file of this folder"),
        (lambda m: m.update(x="/etc/passwd"), "not a safetensors file of this folder"),
        (lambda m: m.update(x="model-00009.safetensors"), "it is not there"),
        (lambda m: m.update(x="model-00001-of-00002.safetensors"), "lists tensors that no file holds: x"),
        (lambda m: m.pop("lm_head.weight"), "does not list these tensors of its files: lm_head.weight"),
        (lambda m: m.update({"lm_head.weight": "model-00001-of-00002.safetensors"}), "in another file than it says"),
        (lambda m: m.clear(), "has no weight_map"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, change, says):
    folder = make_family(tmp_path, 0, shards=2)["base"]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    change(index["weight_map"])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert says in refused(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    folder = make_family(tmp_path, 0, shards=2)["base"]
    path = folder / "model-00002-of-00002.safetensors"
    save_file({**load_file(path), "model.embed_tokens.weight": torch.zeros(96, 32)}, path)
    assert "in two files: model.embed_tokens.weight" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 5}, "num_hidden_layers is 5, but the weights hold 2 layers"),
        ({"num_hidden_layers": 1}, "num_hidden_layers is 1, but the weights hold 2 layers"),
        ({"vocab_size": 97}, "vocab_size is 97, but model.embed_tokens.weight has 96 rows"),
        ({"hidden_size": 64}, "hidden_size is 64, but model.embed_tokens.weight has 32 columns"),
        ({"hidden_size": "32"}, "hidden_size is '32'; it must be a positive whole number"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"architectures": "Llama"}, "architectures must be a list"),
        ({"quantization_config": {"bits": 4}}, "quantised (quantization_config)"),
        *(
            ({"quantization_config": {"quant_method": name}}, f"quantised (quantization_config: {name})")
            for name in ("bitsandbytes", "gptq", "awq", "compressed-tensors", "fp8")
        ),
        ({"num_attention_heads": 5}, "does not divide"),
        ({"intermediate_size": 65}, "intermediate_size is 65, but model.layers.0.mlp.down_proj.weight has 64 columns"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4, but model.layers.0.self_attn.k_proj.weight has 16"),
        ({"head_dim": 16}, "num_key_value_heads is 2, but model.layers.0.self_attn.k_proj.weight has 16 rows"),
        ({"model_type": None}, "names no model_type"),
    ],
)
def test_a_config_that_contradicts_is_refused(family, change, says):
    path = family / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert says in refused(family)


@pytest.mark.parametrize(
    ("dtype", "says"), [(torch.float8_e4m3fn, "stored as F8_E4M3"), (torch.uint8, "packed integers: lm_head.weight, ")]
)
def test_quantised_weights_are_refused_by_name(family, dtype, says):
    path = family / "base" / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    assert says in refused(family)


def test_gguf_is_refused_by_name(family):
    (family / "base" / "model.safetensors").rename(family / "base" / "model-Q4_K_M.gguf")
    assert "GGUF" in refused(family)
    with pytest.raises(UserError, match="GGUF") as caught:
        open_checkpoint("base/model-Q4_K_M.gguf", family)
    assert caught.value.code == "E_QUANTISED"


def test_all_problems_of_a_model_are_told_at_once(tmp_path):
    folder = make_family(tmp_path, 0, shards=3)["base"]
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 0, "vocab_size": []}')
    for i in (1, 3):
        os.truncate(folder / f"model-0000{i}-of-00003.safetensors", 900)
    said = refused(tmp_path)
    for part in ("4 problems", "hidden_size", "vocab_size is a list of 0", "00001-of-00003", "00003-of-00003"):
        assert part in said
