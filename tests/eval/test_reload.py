"""The reload test: what passes, what is refused, what is only said; always through real files and transformers."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from eval.__main__ import main
from eval.scoring.reload import export, logits, reload, reload_test
from merging.errors import UserError
from merging.events import Finished, Notice, Reloaded
from merging.manifest import verify
from merging.plan import make_plan
from merging.recipe import load_recipe
from tests.forked import forked
from tests.pico import make_family

RECIPE = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: helpful}, {model: honest}]\n"
N = 2 * 96 * 32 + 2 * (2 * 1024 + 2 * 512 + 3 * 2048 + 64) + 32


@pytest.fixture
def recipe(family, monkeypatch):
    (family / "recipe.yml").write_text(RECIPE)
    monkeypatch.chdir(family)
    monkeypatch.setenv("MERGESCOPE_HOME", str(family / "home"))
    monkeypatch.setattr("eval.scoring.reload.MAX_NEW_TOKENS", 16)  # most of these models never end
    return family / "recipe.yml"


def run(recipe, **options):
    return list(export(make_plan(load_recipe(recipe)), recipe.parent / "out", "cpu", **options))


def found(events):
    return next(event for event in events if isinstance(event, Reloaded))


def notices(events):
    return [event.text for event in events if isinstance(event, Notice)]


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def always_end(tensors):
    """A model that says token 2, its end, whatever it is asked: its last state is all ones, and only 2 likes that."""
    tensors["model.norm.weight"].fill_(0)
    for name in tensors:
        if name.endswith("norm.weight"):
            continue
        tensors[name].fill_(0)
    tensors["model.embed_tokens.weight"].fill_(1)
    tensors["model.norm.weight"].fill_(1)
    tensors["lm_head.weight"][2] = 1


def test_an_export_is_the_merge_bit_for_bit(recipe):
    events = run(recipe)
    one = found(events)
    assert (one.logit_difference, one.compared, one.n_tensors) == (0.0, 21, 21)
    assert (one.n_parameters, one.n_parameters_base) == (N, N)
    assert one.template
    assert isinstance(events[-1], Finished)
    assert verify(recipe.parent / "out").sources == "same"


def test_tied_stays_tied(tmp_path, monkeypatch):
    make_family(tmp_path, 2, tied=True, tokenizer=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path / "home"))
    (tmp_path / "recipe.yml").write_text(RECIPE)
    one = found(run(tmp_path / "recipe.yml"))
    assert (one.n_parameters, one.n_parameters_base, one.logit_difference) == (N - 96 * 32, N - 96 * 32, 0.0)


def test_a_head_of_its_own_that_config_ties_is_refused_before_the_merge(recipe):
    config = recipe.parent / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": True}))
    with pytest.raises(UserError, match="ties the head to the embedding"):
        run(recipe)
    assert not (recipe.parent / "out").exists()


@pytest.mark.parametrize("where", ["lm_head.weight", "model.norm.weight"])
def test_a_wrong_weight_is_found_and_named(recipe, where):
    run(recipe)
    out = recipe.parent / "out"

    def spoil(tensors):
        tensors[where].view(-1)[0] += 0.25

    edit(out / "model.safetensors", spoil)
    with pytest.raises(UserError, match="is not what the merge computed anew gives") as raised:
        list(reload_test(out, "out", make_plan(load_recipe(recipe)), "cpu"))
    assert where in raised.value.what


def test_a_merge_that_does_not_end_is_told_when_a_source_ends(recipe):
    edit(recipe.parent / "honest" / "model.safetensors", always_end)
    recipe.write_text(RECIPE.replace("{model: honest}", "{model: honest, parameters: {weight: 0.0}}"))
    events = run(recipe)
    if found(events).ends:
        pytest.skip("this random merge ends by chance")
    [text] = notices(events)
    assert "does not end its answer" in text
    assert "honest ends by itself" in text


def test_where_no_source_ends_nothing_is_said(recipe):
    events = run(recipe)
    assert found(events).ends is False
    assert notices(events) == []


def test_a_merge_that_ends(recipe):
    for name in ("base", "helpful", "honest"):
        edit(recipe.parent / name / "model.safetensors", always_end)
    assert found(run(recipe)).ends is True


@pytest.mark.parametrize("template", ["{{ nobody.at.home }}", "{% for m in messages %}", "{{ raise_exception('no') }}"])
def test_a_template_that_fails_is_told_before_the_merge(recipe, template):
    (recipe.parent / "base" / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError) as raised:
        run(recipe)
    assert raised.value.code == "E_TEMPLATE"
    assert not [path for path in recipe.parent.iterdir() if "out" in path.name]


def test_without_a_tokenizer_nothing_is_asked(recipe):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (recipe.parent / "base" / name).unlink()
    events = run(recipe)
    assert found(events).ends is None
    assert any("no tokenizer files" in text for text in notices(events))


def test_a_finished_export_is_tested_with_and_without_its_sources(recipe, tmp_path_factory, monkeypatch):
    run(recipe)
    assert found(list(reload(recipe.parent / "out", "cpu"))).logit_difference == 0.0
    far = tmp_path_factory.mktemp("far")
    shutil.move(recipe.parent / "out", far / "out")
    monkeypatch.chdir(far)
    events = list(reload(far / "out", "cpu"))
    assert found(events).logit_difference is None
    assert "not at hand" in notices(events)[0]
    (far / "out" / "mergescope.json").unlink()
    assert "no manifest" in notices(list(reload(far / "out", "cpu")))[0]


def test_kept_scores_of_this_merge_stand_in_its_card(recipe, monkeypatch):
    from eval.scoring import score

    scores = {h: {"score": 0.5, "low": 0.4, "high": 0.6, "n": 90} for h in score.H}
    monkeypatch.setattr(score, "find", lambda key: score.Run(key, "merge", "", "", {}, scores=scores))
    run(recipe)
    assert "| helpful | 50.0 % | 40 to 60 % | 90 |" in (recipe.parent / "out" / "README.md").read_text()


def test_logits_depend_on_weights(recipe):
    from eval.running.loading import load

    one, two = (load(recipe.parent / name, name, "auto")[0] for name in ("base", "helpful"))
    assert torch.equal(logits(one), logits(one))
    assert not torch.equal(logits(one), logits(two))


def test_killed_in_the_test_it_goes_on_from_there(recipe, monkeypatch):
    def waits(module):
        print("now")
        time.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr("eval.scoring.reload.logits", waits)
        process, said = forked(lambda: run(recipe))
    with said:
        assert said.readline() == "now\n"
    process.kill()
    process.join()
    assert not (recipe.parent / "out").exists()
    events = run(recipe, resume=True)
    assert "1 of 1 shards" in notices(events)[0]
    assert found(events).logit_difference == 0.0


def test_the_commands(recipe, capsys):
    out = str(recipe.parent / "out")
    begun = time.monotonic()
    assert main(["export", str(recipe), out, "--json", "--device", "cpu"]) == 0
    kinds = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["started", *["tensor_done"] * 21, "shard_written", "testing", "reloaded", "finished"]
    assert time.monotonic() - begun < 60
    assert main(["reload", out]) == 0
    assert "gives the same logits, bit for bit" in capsys.readouterr().err
    assert main(["reload", str(recipe.parent / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["export", str(recipe), out]) == 2
    assert "exists already" in capsys.readouterr().err
