"""Whatever is wrong: exit 2, one plain message with what and where, nothing at OUT, sources untouched."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.__main__ import main
from tests.pico import make_family

RECIPE = """
merge_method: ties
base_model: base
models:
- model: helpful
  parameters: {weight: 0.5, density: 0.5}
- model: honest
parameters: {lambda: 1.0}
"""


def sources(folder: Path) -> dict[Path, object]:
    """Every file below the models with its bytes, links with their targets."""
    found: dict[Path, object] = {}
    for name in ("base", "helpful", "honest", "harmless"):
        for path in sorted((folder / name).rglob("*")) if (folder / name).is_dir() else ():
            if path.is_symlink():
                found[path] = os.readlink(path)
            elif path.is_file():
                found[path] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


def refused(folder, capsys, command="merge", out="out"):
    """Run the command line on folder/recipe.yml; the message, after all that holds of every refusal was checked."""
    before, names = sources(folder), sorted(os.listdir(folder))
    code = main([command, str(folder / "recipe.yml"), *([str(folder / out)] if command == "merge" else [])])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == "" or command == "check"  # it tells the passports of the models that can be opened
    assert "Traceback" not in printed.err
    assert 20 < len(printed.err) < 1500
    assert printed.err.isprintable() or {c for c in printed.err if not c.isprintable()} == {"\n"}
    assert sorted(os.listdir(folder)) == names
    assert sources(folder) == before
    return printed.err


def weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# Recipes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "a recipe is a mapping", id="empty"),
        pytest.param("- 1\n- 2", "a recipe is a mapping", id="a list"),
        pytest.param("merge_method: [", "not readable as YAML", id="not YAML"),
        pytest.param("---\na: 1\n---\nb: 2\n", "document 2", id="two documents"),
        pytest.param("? [a, b]\n: 1\n", "not readable as YAML", id="a list as key"),
        pytest.param(RECIPE + "note: " + "x" * 300_000, "larger than", id="too large"),
        pytest.param(RECIPE + "note: " + "[" * 500 + "]" * 500, "nested deeper", id="too deep"),
        pytest.param(
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{n}: &{n} [{','.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)),
            "more than",
            id="aliases",
        ),
        pytest.param(RECIPE + "note: &a [*a]", "alias", id="an alias of itself"),
        pytest.param(RECIPE + "note: !!python/object/apply:os.system ['touch canary']", "not readable", id="code"),
        pytest.param(RECIPE + "dtype: float32\ndtype: float16\n", "twice", id="key twice"),
        pytest.param(RECIPE.replace("ties", "tise"), "Did you mean `ties`?", id="unknown method"),
        pytest.param(RECIPE.replace("ties", "1"), "merge_method", id="method is a number"),
        pytest.param(RECIPE.replace("lambda:", "lamda:"), "Did you mean `lambda`?", id="unknown knob"),
        pytest.param(RECIPE.replace("density:", "densty:"), "Did you mean `density`?", id="unknown knob of an expert"),
        pytest.param(RECIPE.replace("base_model", "base_modle"), "Did you mean `base_model`?", id="unknown key"),
        pytest.param(RECIPE.replace("base_model: base\n", ""), "needs a base", id="no base"),
        pytest.param(RECIPE.replace(": base\n", ": [base]\n"), "base_model", id="base is a list"),
        pytest.param("merge_method: ties\nbase_model: base\n", "at least one model", id="no models"),
        pytest.param("merge_method: ties\nbase_model: base\nmodels: []\n", "at least one model", id="empty models"),
        pytest.param("merge_method: ties\nbase_model: base\nmodels: [{model: 5}]\n", "entry 1", id="model is a number"),
        pytest.param("merge_method: ties\nbase_model: base\nmodels: [helpful]\n", "entry 1", id="model is a word"),
        pytest.param(RECIPE.replace("- model: honest", "- model: honest\n" * 65), "1 to 64", id="too many experts"),
        pytest.param(RECIPE.replace("ties", "slerp"), "slerp", id="slerp of three"),
        pytest.param(RECIPE + "dtype: int4\n", "is none of float32", id="dtype"),
        pytest.param(RECIPE + "dtype: 3\n", "dtype", id="dtype is a number"),
        pytest.param(RECIPE + "dtype: [a]\n", "dtype", id="dtype is a list"),
        pytest.param(RECIPE + "dtype: {}\n", "dtype", id="dtype is a mapping"),
        pytest.param(RECIPE + "seed: -1\n", "seed", id="seed"),
        pytest.param(RECIPE + "seed: true\n", "seed", id="seed is true"),
        pytest.param(RECIPE + "tokenizer_source: [a]\n", "tokenizer_source", id="tokenizer_source is a list"),
        pytest.param(RECIPE + "tokenizer_source: nowhere\n", "nowhere", id="tokenizer_source is not there"),
        pytest.param(RECIPE + "chat_template: chatmal\n", "chat_template", id="unknown chat template"),
        pytest.param(RECIPE + "5: 6\n", "no such key", id="key is a number"),
        pytest.param(RECIPE.replace("parameters: {lambda: 1.0}", "parameters: 5"), "parameters", id="parameters"),
        pytest.param(RECIPE.replace("helpful", "nowhere"), "nowhere", id="missing folder"),
        pytest.param(RECIPE.replace("helpful", "recipe.yml"), "recipe.yml: this is not a folder", id="a file"),
        pytest.param(RECIPE.replace("helpful", "a" * 100_000), "model", id="huge name"),
        pytest.param(RECIPE.replace("helpful", '"a\\0b"'), "model", id="NUL in a name"),
        pytest.param(RECIPE.replace("helpful", '"\\u202Eevil\\n\\e[31m"'), "model", id="unprintable name"),
        pytest.param(RECIPE.replace("helpful", "~nobody-here/x"), "nobody-here", id="unknown home"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_meant(family, capsys, monkeypatch, text, says):
    monkeypatch.chdir(family)
    (family / "recipe.yml").write_text(text)
    said = refused(family, capsys)
    assert says in said
    assert "x" * 200 not in said
    assert "a" * 300 not in said
    assert not (family / "canary").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00m", b"merge_method: \xff", b"\0" * 100])
def test_a_recipe_that_is_no_text(family, capsys, content):
    (family / "recipe.yml").write_bytes(content)
    refused(family, capsys)


def test_a_recipe_that_is_not_there_or_not_a_file(family, capsys):
    assert "no such recipe file" in refused(family, capsys)
    (family / "recipe.yml").mkdir()
    assert "no such recipe file" in refused(family, capsys)
    assert main(["check", "a" * 5000]) == 2
    said = capsys.readouterr().err
    assert "File name too long" in said
    assert len(said) < 400


BAD_NUMBERS = [
    "true", "null", ".nan", ".inf", "-.inf", "abc", "''", "1e400", "1" * 3000, "2024-01-01", "[]", "{}", "[1, a]",
    "[[1]]", "[true]", "[null]", "{value: null}", "[{filter: 5, value: 1}]", "[{filter: a, value: {}}]",
    "[{value: [{value: 1}]}]", "!!binary aGVsbG8=", "0x", "1_0_x",
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=lambda value: value[:12])
@pytest.mark.parametrize("place", ["weight: 0.5", "density: 0.5", "lambda: 1.0"])
def test_a_setting_is_a_finite_number(family, capsys, place, value):
    key = place.split(":")[0]
    (family / "recipe.yml").write_text(RECIPE.replace(place, f"{key}: {value}"))
    said = refused(family, capsys, "check")
    assert key in said
    assert "1" * 100 not in said


@pytest.mark.parametrize(
    ("place", "value"), [("density: 0.5", "1.5"), ("density: 0.5", "-0.1"), ("density: 0.5", "[0.1, 2]")]
)
def test_a_setting_keeps_to_its_domain(family, capsys, place, value):
    (family / "recipe.yml").write_text(RECIPE.replace(place, f"density: {value}"))
    assert "density" in refused(family, capsys)


@pytest.mark.parametrize("value", ["1e-3", "'0.5'", "-2", "+.5", "3.", "1E2", "0", "[0, 1e-1]"])
def test_what_people_mean_as_a_number_is_one(family, capsys, value):
    (family / "recipe.yml").write_text(RECIPE.replace("weight: 0.5", f"weight: {value}"))
    assert main(["merge", str(family / "recipe.yml"), str(family / "out")]) == 0
    capsys.readouterr()


def test_weights_that_sum_to_zero(family, capsys):
    models = "[{model: base, parameters: {weight: 1}}, {model: honest, parameters: {weight: -1}}]"
    (family / "recipe.yml").write_text(f"merge_method: linear\nmodels: {models}")
    assert "sum to 0" in refused(family, capsys)


# Models


def config_is(content):
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / "config.json").write_bytes(data)


def no_config(folder):
    (folder / "config.json").unlink()


def empty_folder(folder):
    for path in folder.iterdir():
        path.unlink()


def only_bin(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def adapter(folder):
    empty_folder(folder)
    (folder / "adapter_config.json").write_text("{}")


def lfs_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def cut_short(folder):
    os.truncate(folder / "model.safetensors", 4000)


def zero_bytes(folder):
    os.truncate(folder / "model.safetensors", 0)


def link_out(folder):
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to("../elsewhere")


def link_to_nothing(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("gone")


def pipe(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def folder_as_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def weights_link_to_themselves(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")


def tokenizer_out(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("who", "change", "says"),
    [
        pytest.param("helpful", no_config, "no config.json", id="no config"),
        pytest.param("base", empty_folder, "no config.json", id="empty folder"),
        pytest.param("helpful", no_weights, "no model.safetensors", id="no weights"),
        pytest.param("helpful", only_bin, "pickle", id="only .bin"),
        pytest.param("helpful", adapter, "LoRA adapter", id="adapter"),
        pytest.param("helpful", lfs_pointer, "git lfs pull", id="git-lfs pointer"),
        pytest.param("helpful", cut_short, "cut short", id="cut short"),
        pytest.param("helpful", zero_bytes, "empty", id="zero bytes"),
        pytest.param("helpful", link_out, "leads outside", id="link out"),
        pytest.param("helpful", link_to_nothing, "link to nothing", id="link to nothing"),
        pytest.param("helpful", weights_link_to_themselves, "link to itself", id="link to itself"),
        pytest.param("helpful", pipe, "not a plain file", id="pipe"),
        pytest.param("helpful", folder_as_weights, "not a plain file", id="folder"),
        pytest.param("base", tokenizer_out, "tokenizer.json: the file leads outside", id="tokenizer link out"),
        pytest.param("helpful", config_is("{"), "not JSON", id="config not JSON"),
        pytest.param("helpful", config_is("[]"), "not a JSON object", id="config a list"),
        pytest.param("helpful", config_is("[" * 10**5), "nested", id="config deep"),
        pytest.param("helpful", config_is('{"a":1,"a":2}'), "twice", id="config key twice"),
        pytest.param("helpful", config_is(b"\xff"), "UTF-8", id="config not text"),
        pytest.param("helpful", config_is(" " * (2 << 20)), "2,097,152", id="config large"),
        pytest.param("helpful", lambda f: config(f, hidden_size=10**12), "hidden_size", id="config huge number"),
        pytest.param("helpful", lambda f: config(f, model_type="x" * 9999), "the base a 'llama'", id="long word"),
        pytest.param("helpful", lambda f: config(f, num_hidden_layers=32), "32", id="config of another"),
        pytest.param("helpful", lambda f: config(f, quantization_config={}), "quantised", id="quantised"),
        pytest.param("helpful", lambda f: config(f, model_type="gpt2"), "gpt2", id="another architecture"),
        pytest.param("helpful", lambda f: weights(f, lambda t: t.pop("lm_head.weight")), "lm_head.weight", id="lacks"),
        pytest.param(
            "base",
            lambda f: weights(f, lambda t: t.pop("model.layers.1.mlp.up_proj.weight")),
            "lacks 1 tensor that helpful holds: `model.layers.1.mlp.up_proj.weight`",
            id="base lacks",
        ),
        pytest.param(
            "base", lambda f: weights(f, lambda t: t.pop("lm_head.weight")), "hold no lm_head.weight", id="no head"
        ),
        pytest.param(
            "helpful",
            lambda f: weights(f, lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(64, 31)})),
            "model.layers.1.mlp.up_proj.weight` is 64 × 31, in the base 64 × 32",
            id="shapes differ",
        ),
        pytest.param(
            "helpful",
            lambda f: weights(f, lambda t: t["model.norm.weight"].fill_(float("nan"))),
            "helpful",
            id="NaN",
        ),
        pytest.param(
            "helpful",
            lambda f: weights(f, lambda t: t["model.layers.0.mlp.up_proj.weight"][2].fill_(float("nan"))),
            "model.layers.0.mlp.up_proj.weight",
            id="NaN in a matrix",
        ),
        pytest.param(
            "base", lambda f: weights(f, lambda t: t["model.norm.weight"].fill_(float("inf"))), "base", id="infinite"
        ),
        pytest.param(
            "helpful", lambda f: weights(f, lambda t: t.update(x=torch.zeros(2).to(torch.float8_e4m3fn))), "F8", id="F8"
        ),
    ],
)
@pytest.mark.parametrize("method", ["ties", "resm"])
def test_a_model_that_cannot_be_merged(family, capsys, who, change, says, method):
    (family / "recipe.yml").write_text(RECIPE.replace("ties", method).replace(", density: 0.5", ""))
    change(family / who)
    said = refused(family, capsys)
    assert says.lower() in said.lower()
    assert who in said or says in said
    assert "x" * 200 not in said


def test_every_problem_is_told_at_once(family, capsys):
    (family / "recipe.yml").write_text(RECIPE.replace("lambda", "lamda").replace("weight: 0.5", "weight: true"))
    cut_short(family / "helpful")
    no_config(family / "honest")
    said = refused(family, capsys, "check")
    assert said.startswith("4 problems:\n1. ")
    for part in ("`lambda`", "True", "helpful/model.safetensors: the file is cut short", "honest: there is no config"):
        assert part in said


# OUT


@pytest.mark.parametrize("out", ["base", "base/merged", ".", "harmless/merged"])
def test_out_is_never_a_source_nor_around_one(family, capsys, out):
    (family / "recipe.yml").write_text(RECIPE + "tokenizer_source: harmless\n")
    assert "must lie apart" in refused(family, capsys, out=out)


@pytest.mark.parametrize("out", ["there", "recipe.yml", "a" * 250, "recipe.yml/out"])
def test_out_must_be_new_and_possible(family, capsys, out):
    (family / "there").mkdir()
    (family / "recipe.yml").write_text(RECIPE)
    refused(family, capsys, out=out)


def test_out_in_a_folder_that_cannot_be_written(family, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (family / "recipe.yml").write_text(RECIPE)
    (family / "closed").mkdir(mode=0o500)
    assert "Permission denied" in refused(family, capsys, out="closed/out")


def test_a_good_merge_follows_a_refused_one(tmp_path, capsys):
    make_family(tmp_path)
    (tmp_path / "recipe.yml").write_text(RECIPE)
    weights(tmp_path / "honest", lambda t: t["lm_head.weight"].fill_(float("nan")))
    refused(tmp_path, capsys)
    make_family(tmp_path)
    assert main(["merge", str(tmp_path / "recipe.yml"), str(tmp_path / "out")]) == 0
    assert "written" in capsys.readouterr().out
