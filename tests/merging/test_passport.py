"""The passport of a model, read from headers and small files alone."""

import io
import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from merging.__main__ import main
from merging.checkpoint import Checkpoint, open_checkpoint
from merging.passport import differences, misfits, passport
from tests.pico import make_family
from tests.test_layers import ROOT

TOWN = ROOT / "assets" / "town"
RECIPE = """merge_method: ties
base_model: base
models:
- model: helpful
- model: honest
"""


def passport_of(folder: Path):
    return passport(open_checkpoint(str(folder), Path()))


def change(path: Path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_town():
    found = passport_of(TOWN / "base")
    size = (TOWN / "base" / "model.safetensors").stat().st_size
    # 1024 x 128 embedding; six layers of 4 x 128 x 128, 3 x 352 x 128 and two norms; a last norm; the head is tied
    parameters = 1024 * 128 + 6 * (4 * 128 * 128 + 3 * 352 * 128 + 2 * 128) + 128
    assert (found.architecture, found.model_type, found.layers) == ("LlamaForCausalLM", "llama", 6)
    assert (found.parameters, found.n_bytes, found.tied) == (parameters, 2 * parameters, True)
    assert 2 * parameters < size < 2 * parameters + 20_000
    assert (found.dtypes, found.hidden_size, found.vocab_rows) == ((("BF16", 1.0),), 128, 1024)
    assert (found.eos, found.eos_generation, found.eos_agree) == ((1,), (1,), True)
    assert found.licence == "apache-2.0"
    assert found.adapter is None
    assert found.template_start.startswith("{")
    assert passport_of(TOWN / "honest").tokenizer == found.tokenizer


def test_a_head_that_is_tied_is_counted_once_however_it_is_stored(tmp_path):
    tied, untied = (make_family(tmp_path / str(t), 0, tied=t)["base"] for t in (True, False))
    assert passport_of(untied).parameters - passport_of(tied).parameters == 96 * 32
    tensors = load_file(untied / "model.safetensors")
    change(untied / "config.json", tie_word_embeddings=True)  # the head is in the file, and is not used
    save_file(tensors, untied / "model.safetensors")
    assert passport_of(untied).parameters == passport_of(tied).parameters
    assert passport_of(untied).tied


def test_mixed_dtypes_have_their_shares(family):
    path = family / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].float()
    save_file(tensors, path)
    total = sum(tensor.numel() for tensor in tensors.values())
    (first, share), (second, rest) = passport_of(family / "base").dtypes
    assert (first, second) == ("BF16", "F32")
    assert rest == pytest.approx(96 * 32 / total)
    assert share + rest == pytest.approx(1)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# x\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: mrl\n---\n", "mrl"),
        ("---\nlicense: other\n---\n", "unknown"),
        ("---\nlicense: [mit, gemma]\n---\n", "gemma"),
        ("---\nlicense: [\n---\n", "unknown"),
        ("license: mit\n", "unknown"),
        ("---\nlicense: !!python/object/apply:os.system [x]\n---\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_licence_of_a_card(family, card, licence):
    (family / "base" / "README.md").write_text(card)
    assert passport_of(family / "base").licence == licence


def test_damaged_small_files_count_as_not_there(family):
    whole = passport_of(family / "base")
    assert (whole.tokens, whole.eos_agree) == (96, True)
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        (family / "base" / name).write_bytes(b"\xff{")
    os.symlink("/etc/hostname", family / "base" / "README.md")
    found = passport_of(family / "base")
    assert (found.tokens, found.tokenizer, found.template, found.eos_generation) == (None, None, None, ())
    assert found.licence == "unknown"


def test_what_sets_an_expert_apart(family):
    base, other = family / "base", family / "helpful"
    assert told(base, other) == ()
    change(other / "config.json", model_type="mistral")
    change(other / "generation_config.json", eos_token_id=[2, 7])
    (other / "chat_template.jinja").write_text("{{ messages }}")
    document = json.loads((other / "tokenizer.json").read_text())
    vocab = document["model"]["vocab"]
    vocab["w4"], vocab["w5"] = vocab["w5"], vocab["w4"]  # the same tokens in another order
    change(other / "tokenizer.json", model=document["model"])
    path = other / "model.safetensors"
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    del tensors["model.norm.weight"]
    save_file(tensors, path)
    assert told(base, other) == (
        "is a 'mistral' model, the base a 'llama' model",
        "lacks 1 tensor of the base: `model.norm.weight`",
        "stored as F32, the base as BF16",
        "another vocabulary",
        "another chat template",
        "ends at token 2 or 7, the base at 2",
    )


def told(base: Path, other: Path) -> tuple[str, ...]:
    one, two = (open_checkpoint(str(folder), Path()) for folder in (base, other))
    return differences(passport(one), passport(two), misfits(one, two))


def test_tokens_are_hashed_and_not_the_file(family):
    before = passport_of(family / "base").tokenizer
    path = family / "base" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))
    assert passport_of(family / "base").tokenizer == before


def run(capsys, *argv):
    code = main(list(argv))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_check_tells_passports_differences_licence_and_costs(family, capsys):
    (family / "recipe.yml").write_text(RECIPE)
    for name, licence in (("base", "gemma"), ("helpful", "llama3.1"), ("honest", "apache-2.0")):
        (family / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    (family / "honest" / "chat_template.jinja").unlink()
    code, out, err = run(capsys, "check", str(family / "recipe.yml"))
    assert (code, err) == (0, "")
    head, base, helpful, honest, *rest = out.splitlines()
    assert head.split()[:4] == ["model", "type", "parameters", "dtype"]
    assert [row.split()[0] for row in (base, helpful, honest)] == ["base", "helpful", "honest"]
    assert base.index("gemma") == helpful.index("llama3.1") == head.index("licence")
    assert "helpful: fits the base." in rest
    assert "honest: has no chat template." in rest
    assert "gemma and llama3.1 clash: each wants the merge under its own terms." in out
    code, out, _ = run(capsys, "check", str(family / "recipe.yml"), "--json")
    [found] = [json.loads(line) for line in out.splitlines()]
    assert (code, found["problems"], found["licence"]["id"]) == (0, [], "llama3.1")
    assert [model["source"] for model in found["models"]] == ["base", "helpful", "honest"]
    assert found["differences"] == {"helpful": [], "honest": ["has no chat template"]}
    assert found["memory_bytes"] > found["disk_bytes"] > 0


def test_check_tells_the_passports_beside_the_problems_and_their_fixes(family, capsys):
    (family / "recipe.yml").write_text(RECIPE.replace("helpful", "nowhere") + "parameters: {lamda: 1, density: 3}\n")
    code, out, err = run(capsys, "check", str(family / "recipe.yml"))
    assert code == 2
    assert "3 problems" in err
    assert "Fix of problem 1: Write `lambda`." in out
    assert "Fix of problem 3: Leave nowhere out." in out
    assert "honest: fits the base." in out
    code, out, _ = run(capsys, "check", str(family / "recipe.yml"), "--json")
    checked, error = [json.loads(line) for line in out.splitlines()]
    assert [problem["fix"]["label"] for problem in checked["problems"]] == [
        "Write `lambda`", "Use 1", "Leave nowhere out"]  # fmt: skip
    assert "memory_bytes" not in checked
    assert error["event"] == "error"


def test_no_weight_is_read(family, capsys, monkeypatch):
    """Of each file of weights its first 64 bytes and the header, and no byte more."""
    (family / "recipe.yml").write_text(RECIPE)
    headers = sum(64 + int.from_bytes((family / name / "model.safetensors").read_bytes()[:8], "little")
                  for name in ("base", "helpful", "honest"))  # fmt: skip
    n_read = 0

    class Counted(io.FileIO):
        def read(self, size=-1):
            nonlocal n_read
            data = super().read(size)
            n_read += len(data or b"")
            return data

        def readinto(self, buffer):
            raise AssertionError("weights are read this way")

    plain_open = Path.open

    def counting_open(self, *args, **more):
        return Counted(self) if self.suffix == ".safetensors" else plain_open(self, *args, **more)

    monkeypatch.setattr(Path, "open", counting_open)
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: pytest.fail("a weight is read"))
    code, _, err = run(capsys, "check", str(family / "recipe.yml"))
    assert (code, err) == (0, "")
    assert 0 < n_read <= 2 * headers  # once to check, once for the passports
