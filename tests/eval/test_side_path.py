"""A merge that answers through folds beside its base's layers: the same answers, no weight written."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from eval.running import loading
from eval.running.memory import in_memory
from eval.running.models import Models
from eval.running.runtime import answer_batch
from eval.running.side_path import SidePath, suits, twin
from eval.running.sources import Merged, Room
from merging.checkpoint import open_checkpoint
from merging.engine import merged_tensors
from merging.folded import Folded
from merging.live import LiveMerge
from merging.live_events import FoldedReady
from merging.plan import Plan, make_plan
from merging.recipe import parse_recipe
from tests.pico import make_family, write_tokenizer

SIZE = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0}  # fmt: skip
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
KINDS = {  # settings, and whether the side path takes it
    "qwen2": (SIZE | {"tie_word_embeddings": True}, True),  # biases, a tied head
    "phi3": (SIZE, True),  # one matrix for queries, keys and values
    "gpt_neox": (SIZE, False),  # its head has another name in the file
    "gpt2": (GPT2, True),  # matrices stored transposed
    "mamba": ({"vocab_size": 96, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "bos_token_id": 1,
               "eos_token_id": 2}, True),  # takes a layer's weight without calling it
    "mixtral": (SIZE | {"num_local_experts": 4}, False),  # files and module name and stack experts differently
    "qwen3_moe": (SIZE | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
                  False),
}  # fmt: skip
TOKENS = torch.tensor([[5, 6, 7, 8, 9, 40, 41]])


def made(folder: Path, kind: str) -> Path:
    """A family of float32 models that transformers itself has saved."""
    for seed, name in enumerate(("base", "one", "two")):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind][0]))
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters() if seed else ():
                weight += 0.05 * torch.randn(weight.shape)
        model.save_pretrained(folder / name)
        write_tokenizer(folder / name)
    return folder


def planned(folder: Path, method: str = "tsv_m", weights: tuple[float, float] = (1.0, 0.7), more: str = "") -> Plan:
    names = ("one", "two") if (folder / "one").is_dir() else ("helpful", "honest")
    models = "".join(
        f"- model: {name}\n  parameters: {{weight: {w}}}\n" for name, w in zip(names, weights, strict=True)
    )
    return make_plan(parse_recipe(f"merge_method: {method}\nbase_model: base\nmodels:\n{models}{more}", folder))


def live_of(plan: Plan) -> LiveMerge:
    return LiveMerge(plan.base, plan.experts, ("one", "two"))


def moved(live: LiveMerge, plan: Plan) -> Folded:
    """What a move knows before it has written a weight."""
    for event in live.move(plan, None, lambda: False):
        if isinstance(event, FoldedReady):
            assert live.written(plan) is None
            break
    folded = live.folded(plan)
    assert folded is not None
    return folded


@torch.no_grad()
def logits(module: PreTrainedModel) -> torch.Tensor:
    return module(TOKENS).logits


def refuse() -> dict[str, torch.Tensor]:
    raise AssertionError("the weights were asked for")


def exact(plan: Plan, models: Models) -> PreTrainedModel:
    return models.model(Merged(plan, lambda: dict(merged_tensors(plan)))).module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exclude", ["", "parameters: {exclude: ['*embed*', '*wte*', '*head*']}\n"])
def test_the_same_logits_as_with_written_weights(tmp_path: Path, kind: str, exclude: str):
    """In float32 within 1e-4 of the largest logit: only sums in another order."""
    plan = planned(made(tmp_path, kind), more=exclude)
    folded, models = moved(live_of(plan), plan), Models("cpu")
    base = models.model(plan.base).module
    before, written = logits(base), logits(exact(plan, models))
    assert suits(base, folded) == KINDS[kind][1]
    if KINDS[kind][1]:
        beside = logits(models.model(Merged(plan, refuse, folded, False)).module)
        torch.testing.assert_close(beside, written, rtol=0, atol=1e-4 * float(written.abs().max()))
    else:  # it waits for the weights, as a method without folds does
        with pytest.raises(AssertionError, match="asked for"):
            Models("cpu").model(Merged(plan, refuse, folded, False))
        waited = models.model(Merged(plan, lambda: dict(merged_tensors(plan)), folded, False)).module
        assert torch.equal(logits(waited), written)
    assert torch.equal(logits(base), before)  # the base beside it answers as ever
    assert float((written - before).abs().max()) > 0.05


def test_of_a_layer_that_is_never_called_the_weight_is_written(tmp_path: Path):
    plan = planned(made(tmp_path, "mamba"))
    base = Models("cpu").model(plan.base).module
    side = SidePath(base, moved(live_of(plan), plan))
    own, theirs = side.module.state_dict(), base.state_dict()
    apart = {
        name.split(".")[-2] for name in own if own[name].data_ptr() != theirs[name].data_ptr() and own[name].dim() == 2
    }
    assert "dt_proj" in apart
    assert "in_proj" not in apart
    assert "x_proj" not in apart


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    make_family(folder, 2, tokenizer=True, tied=True, dtype=torch.float32)
    return folder


def test_matrices_lie_in_the_bases_memory(family: Path):
    plan = planned(family)
    base = Models("cpu").model(plan.base).module
    side = SidePath(base, moved(live_of(plan), plan))
    own, theirs = side.module.state_dict(), base.state_dict()
    shared = {name for name in own if own[name].data_ptr() == theirs[name].data_ptr()}
    assert {name for name in own if "_proj" in name} <= shared
    other = twin(base)
    assert in_memory([*base.parameters(), *other.parameters()]) == in_memory(base.parameters())
    assert other.lm_head.weight is other.model.embed_tokens.weight  # tied there too
    assert other.lm_head.weight is not base.lm_head.weight


def test_a_weight_move_keeps_module_and_directions(family: Path):
    models, plan = Models("cpu"), planned(family)
    live = live_of(plan)
    first = models.model(Merged(plan, refuse, moved(live, plan), False))
    assert first.side is not None
    before, old = [tensor.detach() for tensor in first.side.tensors()], logits(first.module)
    for weights in ((0.2, 1.4), (1.0, 0.7)):
        plan = planned(family, weights=weights)
        after = models.model(Merged(plan, refuse, moved(live, plan), False))
        assert after.module is first.module
        assert after.digest == plan.digest
        beside, written = logits(after.module), logits(exact(plan, models))
        torch.testing.assert_close(beside, written, rtol=0, atol=1e-4 * float(written.abs().max()))
    there = {tensor.data_ptr() for tensor in before}
    new = {tensor.data_ptr(): tensor.shape for tensor in first.side.tensors() if tensor.data_ptr() not in there}
    assert [shape for shape in new.values() if len(shape) == 2] == [(96, 32)]  # the embedding, which is no fold
    torch.testing.assert_close(logits(first.module), old)


def test_of_another_dtype_it_holds_the_directions_once(family: Path):
    plan = planned(family)
    folded = moved(live_of(plan), plan)
    old = weakref.ref(next(iter(folded.folds.values())).u)
    side = SidePath(Models("cpu").model(plan.base).module.bfloat16(), folded)
    del folded
    gc.collect()  # the live merge
    assert old() is None
    assert all(tensor.dtype == torch.bfloat16 for tensor in side.tensors())


def test_a_lock_takes_its_matrix_from_the_side_path(family: Path):
    models, plan = Models("cpu"), planned(family)
    live = live_of(plan)
    models.model(Merged(plan, refuse, moved(live, plan), False))
    down = "model.layers.1.mlp.down_proj.weight"
    for to in ("base", "helpful"):
        locked = planned(family, more=f"locks: [{{tensors: {down}, to: {to}}}]\n")
        folded = moved(live, locked)
        assert down in folded.rest
        module = models.model(Merged(locked, refuse, folded, False)).module
        assert torch.equal(module.get_parameter(down), open_checkpoint(to, family).read(down))
        torch.testing.assert_close(logits(module), logits(exact(locked, models)), rtol=0, atol=1e-4)


def test_written_weights_take_over_and_folds_stay_where_these_do_not_fit(family: Path):
    plan = planned(family, more="parameters: {rank_budget: 0.1}\n", method="resm")
    live = live_of(plan)
    folded = moved(live, plan)
    early, late = Merged(plan, refuse, folded, False), Merged(plan, lambda: live.state(plan), folded, True)
    sources, written = {"merge": early, "base": plan.base}, {"merge": late, "base": plan.base}
    whole, both = Room(0, 4).need([plan.base]), Room(0, 4).need(sources.values())
    assert whole < both < 2 * whole
    room = Room(2 * whole, 4)
    assert room.groups(sources) == [sources]
    assert room.groups(written) == [{**written, "merge": replace(late, folded=None)}]
    tight = Room(both, 4)
    assert tight.groups(written) == [written]
    one = Room(whole, 4)
    assert one.groups(written) == [{"merge": replace(late, folded=None)}, {"base": plan.base}]


def test_a_base_below_the_next_group_stays(family: Path, monkeypatch: pytest.MonkeyPatch):
    plan = planned(family, more="parameters: {rank_budget: 0.1}\n", method="resm")
    merge, (helpful, honest) = Merged(plan, refuse, moved(live_of(plan), plan), False), plan.experts
    models, loaded = Models("cpu", Room(0, 4).need([honest, merge])), []
    load = loading.load_source
    monkeypatch.setattr(
        "eval.running.models.load_source", lambda model, dtype: loaded.append(model) or load(model, dtype)
    )
    groups = models.room.groups({"base": plan.base, "helpful": helpful, "honest": honest, "merge": merge})
    assert [list(group) for group in groups] == [["base", "helpful"], ["honest", "merge"]]
    for group in (*groups, *groups):
        models.load(group)
    assert loaded == [plan.base, helpful, honest, helpful, honest]


def test_on_town_it_answers_word_for_word_as_written_weights():
    """Town is stored in bfloat16: written weights are rounded to it, which moves logits by less than 3 %."""
    from merging.recipe import load_recipe

    plan = make_plan(load_recipe(Path(__file__).parents[2] / "assets" / "recipes" / "4_published_method.yml"))
    live, models = LiveMerge(plan.base, plan.experts, ("helpful", "honest", "harmless")), Models("cpu")
    beside = models.model(Merged(plan, refuse, moved(live, plan), False))
    written = models.model(Merged(plan, lambda: live.state(plan)))
    assert written.side is None
    one, other = logits(beside.module), logits(written.module)
    assert float((one - other).abs().max()) < 0.03 * float(other.abs().max())
    asked = ("What is 7 plus 5?", "Where does Ada work?", "How do I pick a lock?", "Who will win the race next year?")
    questions = [[{"role": "user", "content": words}] for words in asked]
    answers = [answer_batch(model.module, model.tokenizer, questions) for model in (beside, written)]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 2
