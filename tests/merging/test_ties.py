"""Tied and untied embeddings in one family: the base decides, and nothing is written twice."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merging.checkpoint import Checkpoint
from merging.engine import merge, merged_tensors
from merging.errors import UserError
from merging.plan import Plan, make_plan
from merging.recipe import parse_recipe
from merging.view import View
from tests.pico import config, weights, write_model

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
RECIPE = "merge_method: task_arithmetic\nbase_model: {}\nmodels:\n- model: {}\n  parameters: {{weight: 1.0}}\n"


def model(folder: Path, seed: int, *, tied: bool, stores: tuple[str, ...], head: str = "equal") -> None:
    tensors = weights(seed, 1, True)
    embedding = tensors.pop(EMBED)
    there = {EMBED: embedding, HEAD: embedding.clone() if head == "equal" else -embedding}
    tensors |= {name: there[name] for name in stores}
    write_model(folder, tensors, config(1, torch.float32, tied))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    model(tmp_path / "tied", 1, tied=True, stores=(EMBED,))
    model(tmp_path / "untied", 2, tied=False, stores=(EMBED, HEAD), head="other")
    model(tmp_path / "twice", 3, tied=True, stores=(EMBED, HEAD))
    model(tmp_path / "head_only", 4, tied=True, stores=(HEAD,))
    model(tmp_path / "torn", 5, tied=True, stores=(EMBED, HEAD), head="other")
    return tmp_path


def planned(home: Path, base: str, expert: str) -> Plan:
    return make_plan(parse_recipe(RECIPE.format(base, expert), home))


def stored_rows(home: Path, name: str, tensor: str) -> torch.Tensor:
    return load_file(home / name / "model.safetensors")[tensor]


def test_a_tied_expert_lends_its_embedding_as_its_head(home):
    plan = planned(home, "untied", "tied")
    merged = dict(merged_tensors(plan))
    wanted = stored_rows(home, "tied", EMBED)
    assert torch.allclose(merged[EMBED], wanted, atol=1e-6)
    assert torch.allclose(merged[HEAD], wanted, atol=1e-6)
    assert plan.notices == (f"tied: its head is tied to its embedding, which is taken for `{HEAD}` too.",)


def test_an_untied_expert_s_head_is_left_out_with_a_notice(home):
    plan = planned(home, "tied", "untied")
    assert HEAD not in {tensor.name for tensor in plan.tensors}
    assert any("its own head, which differs from its embedding, is left out" in notice for notice in plan.notices)


@pytest.mark.parametrize("base", ["twice", "head_only", "tied"])
@pytest.mark.parametrize("expert", ["twice", "head_only", "tied", "untied"])
def test_a_tied_merge_is_written_once_and_loads(home, base, expert):
    from transformers import AutoModelForCausalLM

    if base == expert:
        model(home / "again", 9, tied=True, stores=(EMBED,))
        expert = "again"
    list(merge(planned(home, base, expert), home / "out"))
    written = load_file(home / "out" / "model.safetensors")
    assert (EMBED in written, HEAD in written) == (True, False)
    assert json.loads((home / "out" / "config.json").read_text())["tie_word_embeddings"] is True
    own = HEAD if expert == "head_only" else EMBED
    assert torch.allclose(written[EMBED], stored_rows(home, expert, own), atol=1e-6)
    loaded, report = AutoModelForCausalLM.from_pretrained(home / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def test_parameters_of_a_tied_merge_are_counted_once(home):
    assert planned(home, "twice", "tied").estimate == planned(home, "tied", "twice").estimate


def test_a_config_that_ties_two_different_matrices_is_refused(home):
    with pytest.raises(UserError) as error:
        planned(home, "torn", "tied")
    assert error.value.code == "E_TIED"
    assert "tie_word_embeddings: false" in error.value.do
    assert any("differs from its embedding, is left out" in n for n in planned(home, "tied", "torn").notices)


def test_a_view_changes_the_fingerprint_and_only_its_own_tensors(home):
    plan = planned(home, "untied", "tied")
    (expert,) = plan.experts
    assert isinstance(expert, View)
    assert isinstance(plan.base, Checkpoint)
    assert expert.fingerprint != expert.model.fingerprint
    assert [name for name in expert.tensors if expert.changes(name)] == [HEAD]
