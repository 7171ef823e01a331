"""Devices, decoding, and models in memory."""

import json
from pathlib import Path

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from eval.running.identity import identity
from eval.running.models import Models
from eval.running.runtime import _PinnedNoise, answer_batch, cores, stream
from eval.running.sources import Merged
from merging.checkpoint import Checkpoint, open_checkpoint
from merging.device import TOLD, choose_device, merges_on
from merging.engine import merge, merged_tensors
from merging.errors import UserError
from merging.models import open_model
from merging.plan import Plan, make_plan
from merging.recipe import parse_recipe
from tests.pico import make_family, write_adapter, write_tokenizer

PROMPTS = [[{"role": "user", "content": words}] for words in ("w5 w6 w7", "w9", "w4 w5 w6 w7 w8 w9 w10 w11")]


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(str(folder), Path())


def planned(folders: dict[str, Path], scale: float = 1.0, extra: str = "") -> Plan:
    base, *experts = folders.values()
    models = "".join(f"  - model: {folder}\n" for folder in experts)
    text = (
        f"merge_method: task_arithmetic\nbase_model: {base}\nmodels:\n{models}parameters: {{lambda: {scale}}}\n{extra}"
    )
    return make_plan(parse_recipe(text, Path()))


def merged(plan: Plan) -> Merged:
    return Merged(plan, lambda: dict(merged_tensors(plan)))


def logits(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.tensor([[5, 6, 7, 8]])).logits


def streamed(models: Models, checkpoint: Checkpoint, prompt: list[int], **changes: float) -> list[int]:
    model, tokens = models.model(checkpoint), []
    settings = {"max_new_tokens": 8, "temperature": 0.0, "seed": 0, **changes}
    stream(model.module, model.tokenizer, prompt, put=tokens.append, stopped=lambda: False, **settings)
    return tokens


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), tokenizer=True, tied=True)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match="no device 'gpu'"):
        choose_device("gpu")
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(UserError, match=f"offers no {absent}"):
        choose_device(absent)
    assert choose_device("cpu").type == "cpu"


def test_auto_is_what_the_page_was_started_with(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setenv(TOLD, "cpu")
    assert choose_device("auto").type == "cpu"
    assert choose_device("cuda").type == "cuda"  # what is asked for itself still counts
    assert [merges_on(torch.device(name)) for name in ("cuda", "mps", "cpu")] == ["cuda", "cpu", "cpu"]


def test_a_container_tells_how_many_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    monkeypatch.setenv("CPU_CORES", "not told")
    assert 1 <= cores() < 4096


def test_a_batch_answers_as_each_prompt_does_alone(family: dict[str, Path]):
    model = Models("cpu").model(opened(family["helpful"]))
    together = answer_batch(model.module, model.tokenizer, PROMPTS, max_new_tokens=6)
    alone = [answer_batch(model.module, model.tokenizer, [prompt], max_new_tokens=6)[0] for prompt in PROMPTS]
    assert together == alone
    assert len(set(together)) > 1


def test_streamed_tokens_are_the_greedy_answer(family: dict[str, Path]):
    models = Models("cpu")
    model = models.model(opened(family["helpful"]))
    tokens = streamed(models, opened(family["helpful"]), model.tokenizer("w9 ")["input_ids"], max_new_tokens=6)
    assert len(tokens) == 6
    answer = answer_batch(model.module, model.tokenizer, [PROMPTS[1]], max_new_tokens=6)[0]
    assert model.tokenizer.decode(tokens, skip_special_tokens=True) == answer


def test_noise_draws_from_the_softmax():
    wanted = torch.tensor([0.5, 0.3, 0.2])
    noise = _PinnedNoise(temperature=2.0, seed=3)
    scores = (2.0 * wanted.log()).expand(20_000, 3)  # at temperature 2 these are the wanted shares
    drawn = torch.bincount(noise(torch.empty(0), scores).argmax(-1), minlength=3) / 20_000
    assert torch.allclose(drawn, wanted, atol=0.015)


def test_a_seed_fixes_a_sampled_answer(family: dict[str, Path]):
    models, checkpoint = Models("cpu"), opened(family["honest"])
    first = streamed(models, checkpoint, [5, 6], temperature=1.5, seed=1)
    torch.rand(7)  # whatever else uses torch's own generator
    assert streamed(models, checkpoint, [5, 6], temperature=1.5, seed=1) == first
    assert streamed(models, checkpoint, [5, 6], temperature=1.5, seed=2) != first


def test_weights_become_float32_exactly(family: dict[str, Path]):
    checkpoint = opened(family["helpful"])
    module = Models("cpu").model(checkpoint).module
    name = "model.layers.1.mlp.down_proj.weight"
    assert module.get_parameter(name).dtype is torch.float32
    assert torch.equal(module.get_parameter(name), checkpoint.read(name).float())


def test_groups_hold_what_fits_together(family: dict[str, Path]):
    sources = {name: opened(folder) for name, folder in family.items()}
    n_bytes = 4 * sum(torch.Size(info.shape).numel() for info in sources["base"].tensors.values())
    wanted = {4 * n_bytes: [["base", "helpful", "honest", "harmless"]],
              3 * n_bytes: [["base", "helpful", "honest"], ["harmless"]],
              1: [["base"], ["helpful"], ["honest"], ["harmless"]]}  # fmt: skip
    for memory, names in wanted.items():
        groups = Models("cpu", memory).room.groups(sources)
        assert [list(group) for group in groups] == names
        assert {name: source for group in groups for name, source in group.items()} == sources


def test_the_least_recently_used_model_goes(family: dict[str, Path]):
    base, helpful, honest, _ = (opened(folder) for folder in family.values())
    n_bytes = 4 * sum(torch.Size(info.shape).numel() for info in base.tensors.values())
    models = Models("cpu", 2 * n_bytes)
    first, second = models.model(base), models.model(helpful)
    assert models.model(base) is first
    models.model(honest)
    assert models.model(base) is first
    assert models.model(helpful) is not second


@pytest.mark.parametrize("tied", [True, False])
def test_a_merge_in_memory_is_the_merge_on_disk(tmp_path: Path, tied: bool):
    folders = make_family(tmp_path, tokenizer=True, tied=tied)
    plan = planned(folders, 0.5)
    list(merge(plan, tmp_path / "out"))
    models = Models("cpu")
    live, saved = models.model(merged(plan)), models.model(opened(tmp_path / "out"))
    assert torch.equal(logits(live.module), logits(saved.module))
    assert live.tokenizer.chat_template == saved.tokenizer.chat_template
    assert live.module.generation_config.eos_token_id == saved.module.generation_config.eos_token_id == 2


def test_a_changed_merge_gets_new_weights_in_the_same_module(family: dict[str, Path]):
    models = Models("cpu")
    module = models.model(merged(planned(family, 0.5))).module
    before = logits(module)
    assert models.model(merged(planned(family, 0.5))).module is module
    assert models.model(merged(planned(family, 1.0))).module is module
    assert not torch.equal(logits(module), before)
    assert models.model(merged(planned(family, 0.0))).module is module
    assert torch.equal(logits(module), logits(models.model(opened(family["base"])).module))
    assert module.lm_head.weight.data_ptr() == module.model.embed_tokens.weight.data_ptr()


def test_another_template_is_another_model(family: dict[str, Path]):
    models = Models("cpu")
    plain = models.model(merged(planned(family)))
    own = models.model(merged(planned(family, extra="chat_template: \"Q {{ messages[-1]['content'] }}\"\n")))
    assert plain.tokenizer.chat_template != own.tokenizer.chat_template
    assert own.tokenizer.apply_chat_template(PROMPTS[0], tokenize=False) == "Q w5 w6 w7"


def test_the_module_keeps_no_hold_on_the_weights_it_was_given(tmp_path: Path):
    folders = make_family(tmp_path, 1, tokenizer=True, dtype=torch.float32)
    plan = planned(folders)
    state = dict(merged_tensors(plan))
    module = Models("cpu").model(Merged(plan, lambda: state)).module
    before = logits(module)
    for tensor in state.values():
        tensor.zero_()
    assert torch.equal(logits(module), before)


def test_an_architecture_that_stacks_its_tensors_merges_too(tmp_path: Path):
    """Mixtral's files hold one matrix an expert, its module one stack: nothing can be copied name by name."""
    folders = {}
    for seed, name in enumerate(("base", "helpful")):
        torch.manual_seed(seed)
        config = MixtralConfig(vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                               num_attention_heads=2, num_key_value_heads=2, num_local_experts=2)  # fmt: skip
        MixtralForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / name)
        write_tokenizer(tmp_path / name)
        folders[name] = tmp_path / name
    models = Models("cpu")
    for scale in (1.0, 0.0):
        live = logits(models.model(merged(planned(folders, scale))).module)
        assert torch.equal(live, logits(models.model(opened(folders["helpful" if scale else "base"])).module))


def test_a_model_that_lacks_tensors_is_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = make_family(tmp_path, 0, tokenizer=True)["base"]
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="q_proj"):
        Models("cpu").model(opened(folder))


def test_a_folder_without_tokenizer_is_a_plain_error(tmp_path: Path):
    with pytest.raises(UserError, match="no tokenizer files"):
        Models("cpu").model(opened(make_family(tmp_path, 0)["base"]))


def test_what_transformers_cannot_load_is_a_plain_error_and_runs_nothing(tmp_path: Path):
    folder = make_family(tmp_path, 0, tokenizer=True)["base"]
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "martian", "auto_map": {"AutoModelForCausalLM": "code.Martian"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('a model ran its own code')")
    with pytest.raises(UserError, match="cannot load this model") as caught:
        Models("cpu").model(opened(folder))
    assert caught.value.code == "E_MODEL"


def test_an_adapter_answers_with_the_weights_that_it_and_its_base_make(tmp_path: Path):
    family = make_family(tmp_path, 0, tokenizer=True, dtype=torch.float32)
    adapter = write_adapter(tmp_path / "lora", {"model.layers.0.self_attn.q_proj": (32, 32), "lm_head": (96, 32)}, 16)
    checkpoint = open_model(f"{family['base']}+{adapter}", Path())
    models = Models("cpu")
    answers = models.model(checkpoint)
    assert answers.digest == checkpoint.fingerprint
    own = answers.module.state_dict()
    for name in checkpoint.tensors:
        assert torch.equal(own[name], checkpoint.read(name))
    assert float((logits(answers.module) - logits(models.model(opened(family["base"])).module)).abs().max()) > 0.1
    assert streamed(models, checkpoint, [5, 6, 7])
    merged_alone = planned({"base": family["base"], "lora": Path(f"{family['base']}+{adapter}")})
    torch.testing.assert_close(logits(models.model(merged(merged_alone)).module), logits(answers.module))


def test_an_adapter_speaks_with_its_own_tokenizer_where_it_has_one(tmp_path: Path):
    family = make_family(tmp_path, 0, tokenizer=True)
    adapter = write_adapter(tmp_path / "lora", {"model.layers.0.self_attn.q_proj": (32, 32)})
    checkpoint = open_model(f"{family['base']}+{adapter}", Path())
    before = identity(checkpoint)
    write_tokenizer(adapter)
    (adapter / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} w9 {% endfor %}")
    tokenizer = Models("cpu").model(checkpoint).tokenizer
    asked = tokenizer.apply_chat_template(PROMPTS[1], tokenize=False)
    assert asked == "w9 w9 "
    assert identity(checkpoint) != before
