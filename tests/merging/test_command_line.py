"""The command line: what it prints and how it ends."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from merging.__main__ import main
from merging.engine import merged_tensors
from merging.methods import METHODS
from merging.plan import make_plan
from merging.recipe import load_recipe
from merging.shaping import SHAPING

RECIPE = """
merge_method: resm
base_model: base
models:
- model: helpful
- model: honest
- model: harmless
"""


@pytest.fixture
def recipe(family):
    (family / "recipe.yml").write_text(RECIPE)
    return str(family / "recipe.yml")


def run(capsys, *argv):
    code = main(list(argv))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def lines_of(text):
    def no_constants(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constants) for line in text.splitlines()]


def test_a_merge_writes_the_engines_weights(family, recipe, capsys):
    code, out, err = run(capsys, "merge", recipe, str(family / "out"), "--device", "cpu")
    assert code == 0
    assert out.startswith(f"{family / 'out'} written: 21 tensors in ")
    assert "21 tensors. Needs" in err
    expected = dict(merged_tensors(make_plan(load_recipe(family / "recipe.yml"))))
    found = load_file(family / "out" / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_json_is_one_event_a_line(family, recipe, capsys):
    code, out, err = run(capsys, "merge", recipe, str(family / "out"), "--json")
    assert (code, err) == (0, "")
    events = lines_of(out)
    kinds = [event["event"] for event in events]
    assert kinds == ["started", *["tensor_done"] * 21, "shard_written", "finished"]
    assert events[0]["n_tensors"] == 21
    assert events[-1]["folder"] == str(family / "out")
    assert re.fullmatch("[0-9a-f]{64}", events[-1]["digest"])


def test_an_error_is_told_twice_with_json(family, recipe, capsys):
    (family / "out").mkdir()
    code, out, err = run(capsys, "merge", recipe, str(family / "out"), "--json")
    assert code == 2
    [event] = lines_of(out)
    assert (event["event"], event["code"], event["where"]) == ("error", "E_OUT_EXISTS", str(family / "out"))
    assert err == f"{family / 'out'}: this exists already. It was not touched. {event['do']}\n"


def test_several_problems_are_listed_for_programs_too(family, recipe, capsys):
    for name in ("helpful", "honest"):
        (family / name / "config.json").unlink()
    code, out, _ = run(capsys, "check", recipe, "--json")
    assert code == 2
    assert [(p["code"], p["where"]) for p in lines_of(out)[0]["problems"]] == [
        ("E_CONFIG", "helpful"),
        ("E_CONFIG", "honest"),
    ]


def test_check_tells_what_a_merge_needs_and_writes_nothing(family, recipe, capsys):
    before = sorted(family.iterdir())
    code, out, _ = run(capsys, "check", recipe)
    assert code == 0
    assert "No problem found: RESM" in out
    code, out, _ = run(capsys, "check", recipe, "--json")
    [found] = lines_of(out)
    # two embeddings of 96 x 32; a layer has 2 of 32 x 32, 2 of 16 x 32, 3 of 64 x 32 and 2 norms; a last norm
    n_parameters = 2 * 96 * 32 + 2 * (2 * 1024 + 2 * 512 + 3 * 2048 + 64) + 32
    assert (code, found["n_parameters"], found["disk_bytes"]) == (0, n_parameters, 2 * n_parameters)
    assert sorted(family.iterdir()) == before


def test_methods_are_listed_from_the_registry(capsys):
    _, out, _ = run(capsys, "methods")
    _, lines, _ = run(capsys, "methods", "--json")
    *methods, shared = lines_of(lines)
    found = {event["id"]: event for event in methods}
    assert found.keys() == METHODS.keys()
    assert [knob["key"] for knob in shared["knobs"]] == [knob.key for knob in SHAPING]
    assert all(f"    {knob.key} " in out for knob in SHAPING)
    for method in METHODS.values():
        assert f"{method.id}: {method.title}" in out
        assert [knob["key"] for knob in found[method.id]["knobs"]] == [knob.key for knob in method.knobs]


def test_profile_prints_every_matrix_and_pair(family, recipe, capsys):
    code, out, _ = run(capsys, "profile", recipe)
    assert code == 0
    assert len(out.splitlines()) == 1 + 2 * 7 * 3
    assert "    1 q        honest and harmless " in out
    _, lines, _ = run(capsys, "profile", recipe, "--json")
    rows = lines_of(lines)
    assert len(rows) == 14
    assert rows[0]["pairs"][0]["pair"] == ["helpful", "honest"]
    assert 0 <= rows[0]["pairs"][0]["sign"] <= 1


def test_a_delta_of_zero_is_null_in_json(family, recipe, capsys):
    for path in (family / "base").iterdir():
        (family / "honest" / path.name).write_bytes(path.read_bytes())
    code, lines, _ = run(capsys, "profile", recipe, "--json")
    assert code == 0
    assert lines_of(lines)[0]["pairs"][0]["cosine"] is None


def test_the_report_is_one_page_that_loads_nothing(family, recipe, capsys):
    page = family / "report.html"
    (family / "recipe.yml").write_text(RECIPE + "name: '</script><script>alert(1)'\n")
    code, _, _ = run(capsys, "profile", recipe, "--html", str(page))
    assert code == 0
    html = page.read_text()
    head, _, tail = html.partition("<body>")
    assert "<title>&lt;/script&gt;" in head
    assert "alert(1)" not in tail.replace("&lt;/script&gt;&lt;script&gt;alert(1)", "")
    assert html.count("data-picture=") == 4 * 3
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html[: html.index("<script>")])
    code, _, err = run(capsys, "profile", recipe, "--html", str(page))
    assert code == 2
    assert "exists already" in err
    assert page.read_text() == html


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "COMMAND"),
        (["merg"], "invalid choice: 'merg'"),
        (["merge", "recipe.yml"], "OUT/"),
        (["merge", "recipe.yml", "out", "--device", "tpu"], "tpu"),
        (["merge", "recipe.yml", "out", "--res"], "--res"),
    ],
)
def test_a_wrong_word_ends_in_one_message(capsys, argv, says):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert says in err
    assert "--help" in err
    code, out, _ = run(capsys, *argv, "--json")
    assert lines_of(out)[0]["code"] == "E_USAGE"


def test_a_device_that_is_not_there(family, recipe, capsys):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    code, _, err = run(capsys, "merge", recipe, str(family / "out"), "--device", "mps")
    assert code == 2
    assert "offers no mps" in err
    assert not (family / "out").exists()


def test_ctrl_c_ends_at_once_and_leaves_no_output(family, recipe, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("merging.engine.merged_pieces", interrupted)
    code, out, err = run(capsys, "merge", recipe, str(family / "out"))
    assert (code, out) == (130, "")
    assert "--resume" in err
    assert not (family / "out").exists()
    monkeypatch.undo()
    assert run(capsys, "merge", recipe, str(family / "out"), "--resume")[0] == 0


def test_it_starts_fast_and_without_the_page():
    """A fresh process: nothing that only the page or the chat needs is imported."""
    code = (
        "import sys; from merging.__main__ import main; main(['methods']);"
        "print([m for m in ('gradio', 'plotly', 'transformers', 'peft', 'huggingface_hub') if m in sys.modules])"
    )
    begun = os.times().children_user  # of the CPU: a busy machine is no fault of ours
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1] == "[]"
    assert os.times().children_user - begun < 8
    usage = subprocess.run([sys.executable, "-m", "merging", "merge"], capture_output=True, text=True, timeout=60)
    assert usage.returncode == 2
    assert "RECIPE.yml" in usage.stderr


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("merging", ["merge", "nowhere.yml", "out"]),
        ("merging", ["check", "nowhere.yml"]),
        ("merging", ["profile", "recipe.yml", "--html", "nowhere/page.html"]),
        ("merging", ["fit", "recipe.yml", "--densities", "nowhere/best.yml"]),
        ("eval", ["export", "nowhere.yml", "out"]),
        ("eval", ["calibrate", "nowhere.yml", "measured"]),
        ("eval", ["search", "recipe.yml", "nowhere/best.yml"]),
        ("eval", ["glue", "recipe.yml", "nowhere/best.yml"]),
        ("eval", ["safest", "recipe.yml", "nowhere/best.yml"]),
    ],
)
def test_what_costs_nothing_is_checked_before_torch_is_imported(family, recipe, monkeypatch, module, words):
    monkeypatch.chdir(family)
    code = f"import sys; from {module}.__main__ import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)
    assert found.stdout == "2 False\n", found.stderr


@pytest.mark.parametrize("words", [["export", "bad.yml", "out"], ["calibrate", "bad.yml", "out"]])
def test_a_model_that_is_not_there_is_said_before_transformers_is_imported(family, monkeypatch, words):
    monkeypatch.chdir(family)
    (family / "bad.yml").write_text("merge_method: linear\nbase_model: base\nmodels: [{model: ./nowhere}]\n")
    code = "import sys; from eval.__main__ import main; print(main(sys.argv[1:]), 'transformers' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)
    assert found.stdout == "2 False\n", found.stderr
