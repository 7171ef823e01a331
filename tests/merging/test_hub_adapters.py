"""Adapters on the Hub: checked from headers over a base of the Hub, pinned, and downloaded with it."""

import json
from pathlib import Path

import pytest
import torch

from merging.__main__ import main
from merging.adapter import AdapterCheckpoint
from merging.engine import merged_tensors
from merging.errors import UserError
from merging.hub import Hub
from merging.models import open_model
from merging.passport import passport
from merging.pins import missing, pinned
from merging.plan import make_plan
from merging.recipe import load_recipe, parse_recipe
from tests.fake_hub import FakeHub
from tests.pico import make_family, write_adapter

Q0, Q1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
BOTH = "merge_method: task_arithmetic\nbase_model: org/base\nmodels: [{model: org/base+org/one}, {model: %s}]\n"


@pytest.fixture
def fake(fake_hub: FakeHub, tmp_path: Path) -> FakeHub:
    """org/base, and the adapters org/one, which is told its base, and org/two, which names org/base itself."""
    base = make_family(tmp_path / "models", 0, tokenizer=True)["base"]
    (base / "README.md").write_text("---\nlicense: gemma\n---\n")
    fake_hub.add("org/base", base)
    one, two = (write_adapter(tmp_path / "models" / name, {name_of: (32, 32)}) for name, name_of in
                (("one", Q0), ("two", Q1)))  # fmt: skip
    (one / "README.md").write_text("---\nlicense: mit\n---\n")
    config = json.loads((two / "adapter_config.json").read_text())
    (two / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/base"}))
    for name, folder in (("org/one", one), ("org/two", two)):
        fake_hub.add(name, folder)
    return fake_hub


def weights(fake: FakeHub, *names: str) -> int:
    return sum(len(data) for name in names for file, data in fake.repos[name].files.items()
               if file.endswith(".safetensors"))  # fmt: skip


def served(fake: FakeHub) -> int:
    return sum(n for name, n in fake.served.items() if name.endswith(".safetensors"))


def test_an_adapter_is_checked_from_headers(fake):
    model = open_model("org/base+org/one", Path(), Hub())
    assert 0 < served(fake) < weights(fake, "org/base", "org/one") / 4
    found = passport(model)
    assert found.adapter is not None
    assert (found.adapter.rank, found.adapter.alpha, found.adapter.parameters) == (4, 8.0, 2 * 4 * 32)
    assert (found.commit, found.licence, found.layers) == (fake.repos["org/one"].head, "gemma", 2)
    assert model.over is not None
    assert model.over.commit == fake.repos["org/base"].head
    assert weights(fake, "org/base", "org/one") < found.download_bytes < weights(fake, "org/base", "org/one") + 20_000
    assert isinstance(model, AdapterCheckpoint)
    for part, name in ((model, "org/base"), (model.file, "org/one")):
        with pytest.raises(UserError, match=rf"only the headers.*python -m merging download {name}\.$"):
            part.read(next(iter(part.tensors)))


def test_a_base_that_only_the_adapter_names_is_fetched_and_pinned(fake):
    recipe = parse_recipe("merge_method: linear\nmodels: [{model: org/two}]\n", Path())
    assert missing(recipe) == ["org/two"]
    with pytest.raises(UserError, match="no such model in this machine's Hub cache"):
        make_plan(recipe)
    plan = make_plan(recipe, Hub())
    assert any("the base that its adapter_config.json names" in notice for notice in plan.notices)
    assert missing(recipe) == ["org/base", "org/two"]
    base, two = (f"org/{name}@{fake.repos[f'org/{name}'].head}" for name in ("base", "two"))
    assert [expert.model for expert in pinned(recipe).experts] == [f"{base}+{two}"]
    assert make_plan(pinned(recipe)).digest == plan.digest


def test_a_base_below_several_models_is_downloaded_and_counted_once(fake, tmp_path, capsys):
    (tmp_path / "recipe.yml").write_text(BOTH % "org/two")
    plan = make_plan(load_recipe(tmp_path / "recipe.yml"), Hub())
    size = weights(fake, "org/base", "org/one", "org/two")
    assert size < plan.estimate.download_bytes < size + 30_000
    assert main(["check", str(tmp_path / "recipe.yml")]) == 0
    assert f"To download first: {plan.estimate.download_bytes / 1e6:,.1f} MB." in capsys.readouterr().out
    assert main(["merge", str(tmp_path / "recipe.yml"), str(tmp_path / "out")]) == 0
    assert served(fake) < 1.5 * size
    written = load_recipe(tmp_path / "out" / "mergescope.yml")
    heads = {name: repo.head for name, repo in fake.repos.items()}
    assert written.base == f"org/base@{heads['org/base']}"
    assert [expert.model for expert in written.experts] == [
        f"org/base@{heads['org/base']}+{name}@{heads[name]}" for name in ("org/one", "org/two")]  # fmt: skip
    assert "license: gemma" in (tmp_path / "out" / "README.md").read_text()
    local = parse_recipe((BOTH % "org/base+org/two").replace("org", "models"), tmp_path)
    here, there = (dict(merged_tensors(make_plan(recipe))) for recipe in (local, written))
    assert all(torch.equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize("more", [
    "locks: [{tensors: '*norm*', to: org/two}]\n", "tokenizer_source: org/two\n", "tokenizer: {source: org/two}\n",
])  # fmt: skip
def test_pins_reach_locks_and_tokenizers(fake, more):
    recipe = parse_recipe(BOTH % "org/two" + more, Path())
    make_plan(recipe, Hub())
    fixed = pinned(recipe)
    two = f"org/base@{fake.repos['org/base'].head}+org/two@{fake.repos['org/two'].head}"
    assert two in (fixed.locks[0].to if fixed.locks else "", *(fixed.vocabulary.models if fixed.vocabulary else ()))
    assert make_plan(fixed).digest == make_plan(recipe).digest
