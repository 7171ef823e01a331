"""LoRA adapters: what we read of base and adapter is what PEFT merges."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.__main__ import main
from merging.adapter import AdapterCheckpoint
from merging.compute import deltas_from
from merging.engine import merge, merged_tensors
from merging.errors import UserError
from merging.live import LiveMerge
from merging.live_events import LookReady, StateReady
from merging.models import open_model
from merging.plan import check, make_plan
from merging.recipe import Expert, parse_recipe
from tests.pico import make_family, write_adapter

FILE = "adapter_model.safetensors"
Q0 = "model.layers.0.self_attn.q_proj"
Q1 = "model.layers.1.self_attn.q_proj"
LINEAR = ["q_proj", "v_proj", "down_proj"]
LLAMA = {
    "plain": {"target_modules": LINEAR},
    "rslora": {"target_modules": LINEAR, "use_rslora": True},
    "all linear": {"target_modules": "all-linear", "lora_dropout": 0.1},
    "one layer": {"target_modules": LINEAR, "layers_to_transform": [1]},
    "patterns": {
        "target_modules": LINEAR,
        "rank_pattern": {"q_proj": 2, r"^model\.layers\.[01]\.mlp\.down_proj": 7},
        "alpha_pattern": {"layers.1.self_attn.(q|v)_proj": 3, "^q_proj": 100, "q_proj": 5},
    },
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "modules_to_save": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 95, 7]},
    "tokens by layer": {"target_modules": ["q_proj"],
                        "trainable_token_indices": {"embed_tokens": [4, 9], "lm_head": [2]}},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "dora embedding": {"target_modules": ["embed_tokens", "o_proj"], "use_dora": True},
    "orthogonal": {"target_modules": LINEAR, "init_lora_weights": "orthogonal"},
    "wrong flag": {"target_modules": LINEAR, "fan_in_fan_out": True},
}  # fmt: skip
GPT2 = {
    "gpt2": {"target_modules": ["c_attn", "c_proj", "c_fc"]},
    "gpt2 square": {"target_modules": r".*attn\.c_proj"},
    "gpt2 dora": {"target_modules": ["c_attn", "c_proj"], "use_dora": True},
    "gpt2 lora_bias": {"target_modules": ["c_attn", "c_proj"], "lora_bias": True},
    "gpt2 bias all": {"target_modules": ["c_attn"], "bias": "all"},
    "gpt2 bias lora_only": {"target_modules": ["c_attn"], "bias": "lora_only"},
    "gpt2 tied tokens": {"target_modules": ["c_attn"], "trainable_token_indices": [1, 2]},
}
TIED = {
    "tied saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "tied tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5]},
}
APART = {  # what PEFT's own merge gives other logits for
    "tied embedding": {"target_modules": ["embed_tokens"]},
    "tied head": {"target_modules": ["lm_head"]},
    "tied both": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "tied saved apart": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
}


class Home:
    """Bases and adapters on disk, and what PEFT merges of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.merged: dict[str, dict[str, Tensor]] = {}  # by adapter, under the names of the saved model

    def opened(self, name: str) -> AdapterCheckpoint:
        base = "gpt2" if name in GPT2 else "tied" if name in TIED | APART else "moe" if name == "mixtral" else "base"
        model = open_model(f"{base}+adapters/{name}", self.folder)
        assert isinstance(model, AdapterCheckpoint)
        return model

    def make(self, name: str, base: str, settings: dict) -> None:
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(len(self.merged))
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(self.folder / base, dtype=torch.float32),
            LoraConfig(**{"r": 4, "lora_alpha": 6, **settings}),
        )
        trained = {id(p): p for p in model.parameters() if p.requires_grad}
        for parameter in trained.values():
            parameter.data += torch.randn_like(parameter) * 0.1
        adapter = self.folder / "adapters" / name
        model.save_pretrained(adapter)
        fresh = AutoModelForCausalLM.from_pretrained(self.folder / base, dtype=torch.float32)
        whole = PeftModel.from_pretrained(fresh, adapter).merge_and_unload()
        whole.save_pretrained(self.folder / "merged" / name)
        self.merged[name] = load_file(self.folder / "merged" / name / "model.safetensors")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    pytest.importorskip("peft")
    from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

    folder = tmp_path_factory.mktemp("adapters")
    make_family(folder, 1, dtype=torch.float32)
    make_family(folder / "t", 0, dtype=torch.float32, tied=True)
    make_family(folder / "b", 0, dtype=torch.bfloat16)
    (folder / "t" / "base").rename(folder / "tied")
    (folder / "b" / "base").rename(folder / "bf16")
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    for name, parameter in gpt2.named_parameters():
        if name.endswith("bias"):
            parameter.data += torch.randn_like(parameter) * 0.1
    gpt2.save_pretrained(folder / "gpt2")
    MixtralForCausalLM(
        MixtralConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                      num_key_value_heads=1, num_local_experts=3, tie_word_embeddings=False)
    ).save_pretrained(folder / "moe")  # fmt: skip
    home = Home(folder)
    for kinds, base in ((LLAMA, "base"), (GPT2, "gpt2"), (TIED | APART, "tied")):
        for name, settings in kinds.items():
            home.make(name, base, settings)
    home.make("mixtral", "moe", {"target_modules": ["q_proj", "o_proj"]})
    home.make("second", "base", {"target_modules": ["q_proj", "up_proj"], "r": 3})
    for name in ("wide", "wide too"):  # as many directions as TSV-M takes of two experts
        home.make(name, "base", {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 16})
    home.make("fused", "moe", {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]})
    return home


@pytest.mark.parametrize("name", [*LLAMA, *GPT2, *TIED, "mixtral"])
def test_base_and_adapter_are_what_peft_merges(home: Home, name: str):
    model = home.opened(name)
    error = max(float((model.read(n).float() - home.merged[name][n]).abs().max()) for n in model.tensors)
    print(f"{name}: {error:.1e}")
    assert error <= 1e-6
    for tensor in model.changes:
        assert float((model.read(tensor) - model.over.read(tensor)).abs().max()) > 1e-3  # PEFT has changed something


@pytest.mark.parametrize("name", APART)
def test_training_apart_what_the_base_ties_is_refused(home: Home, name: str):
    with pytest.raises(UserError, match="the base ties its head to its embedding") as caught:
        home.opened(name)
    assert caught.value.code == "E_ADAPTER"


def test_a_head_that_is_tied_and_still_differs_is_refused(home: Home, tmp_path: Path):
    folder = shutil.copytree(home.folder / "adapters" / "tied saved", tmp_path / "a")
    tensors = load_file(folder / FILE)
    tensors["base_model.model.lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / FILE)
    model = open_model(f"{home.folder / 'tied'}+{folder}", Path())
    with pytest.raises(UserError, match="its embedding and its head differ"):
        model.read("model.embed_tokens.weight")


def test_fused_parameters_are_refused_by_name(home: Home):
    with pytest.raises(UserError, match="target_parameters"):
        open_model("moe+adapters/fused", home.folder)


def test_an_expert_of_a_mixture_has_a_name_of_its_own_on_disk(home: Home, tmp_path: Path):
    module = "model.layers.0.block_sparse_moe.experts.2.w1"
    adapter = write_adapter(tmp_path / "a", {module: (24, 16)})
    model = open_model(f"{home.folder / 'moe'}+{adapter}", Path())
    assert isinstance(model, AdapterCheckpoint)
    assert list(model.changes) == [f"{module}.weight"]


# What a merge makes of adapters


def delta_of(folder: Path, module: str, scale: float) -> Tensor:
    tensors = {name: tensor.double() for name, tensor in load_file(folder / FILE).items()}
    a, b = (tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
    return scale * (b @ a)


def test_over_a_bfloat16_base_the_delta_is_exact(home: Home):
    base, model = (open_model(source, home.folder) for source in ("bf16", "bf16+adapters/plain"))
    name = f"{Q0}.weight"
    factors = deltas_from(base, name, [(model, name)])[1]
    delta, low = factors.deltas[0], factors.low[0]
    wanted = delta_of(home.folder / "adapters" / "plain", Q0, 6 / 4)
    assert float((delta.double() - wanted).abs().max()) < 1e-6 * float(wanted.abs().max())
    assert low is not None
    assert [tuple(part.shape) for part in low] == [(32, 4), (4, 32)]
    rounded = (base.read(name).float() + delta).bfloat16().float() - base.read(name).float()
    assert float((rounded.double() - wanted).abs().max()) > 1e-4  # what a merged bfloat16 copy would have kept
    for untouched in ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
        assert not deltas_from(base, untouched, [(model, untouched)])[1].deltas.any()


def merged(home: Home, method: str, models: list[str], **more: object) -> dict[str, Tensor]:
    document = {"merge_method": method, "base_model": "base", "models": [{"model": m} for m in models], **more}
    return dict(merged_tensors(make_plan(parse_recipe(json.dumps(document), home.folder))))


@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_m", "resm", "ties", "linear", "slerp"])
def test_a_merge_of_adapters_is_that_of_the_models_peft_makes_of_them(home: Home, method: str):
    more = {"parameters": {"t": 0.3}} if method == "slerp" else {}
    names = ["plain"] if method == "slerp" else ["wide", "wide too"] if method == "tsv_m" else ["plain", "second"]
    ours = merged(home, method, [f"adapters/{name}" for name in names], **more)
    theirs = merged(home, method, [f"merged/{name}" for name in names], **more)
    error = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    print(f"{method}: {error:.1e}")
    assert error < 2e-6


def test_an_adapter_brings_only_its_own_directions_into_tsv_m(home: Home):
    # As whole models they would bring null vectors too, which bend the other's directions.
    name = "model.layers.0.mlp.down_proj.weight"  # `second` leaves it alone
    ours = merged(home, "tsv_m", ["base+adapters/plain", "base+adapters/second"])
    assert float((ours[name] - home.merged["plain"][name]).abs().max()) < 1e-6


def test_an_adapter_and_a_whole_model_in_one_merge(home: Home):
    name = f"{Q0}.weight"
    ours = merged(home, "task_arithmetic", ["base+adapters/plain", "helpful"])
    base, helpful = (open_model(source, home.folder).read(name).double() for source in ("base", "helpful"))
    wanted = helpful + delta_of(home.folder / "adapters" / "plain", Q0, 6 / 4)
    assert float((ours[name].double() - wanted).abs().max()) < 1e-6
    assert torch.equal(ours["model.norm.weight"], helpful_norm(home))
    assert float((base - wanted).abs().max()) > 0.1


def helpful_norm(home: Home) -> Tensor:
    return load_file(home.folder / "helpful" / "model.safetensors")["model.norm.weight"]


def test_an_adapter_may_be_the_base_or_lie_on_another(home: Home):
    on_top = open_model("base+adapters/plain+adapters/second", home.folder)
    wanted = load_file(home.folder / "merged" / "plain" / "model.safetensors")[f"{Q1}.weight"].double()
    wanted += delta_of(home.folder / "adapters" / "second", Q1, 6 / 3)
    assert float((on_top.read(f"{Q1}.weight").double() - wanted).abs().max()) < 1e-6
    models = "models: [{model: bf16+adapters/plain+adapters/second}]"
    text = f"merge_method: task_arithmetic\nbase_model: bf16+adapters/plain\n{models}"
    plan = make_plan(parse_recipe(text, home.folder))
    tensors = dict(merged_tensors(plan))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    wanted = open_model("bf16+adapters/plain+adapters/second", home.folder).read(f"{Q1}.weight")
    torch.testing.assert_close(tensors[f"{Q1}.weight"], wanted.bfloat16())


@pytest.mark.parametrize("method", ["tsv_m", "resm", "ties", "linear"])
def test_the_live_merge_of_adapters_is_their_export(home: Home, method: str):
    sources = ["base+adapters/plain", "base+adapters/dora"]
    document = {"merge_method": method, "base_model": "base", "models": [{"model": source} for source in sources]}
    plan = make_plan(parse_recipe(json.dumps(document), home.folder))
    live = LiveMerge(plan.base, plan.experts, ["plain", "dora"])
    events = list(live.move(plan, f"{Q0}.weight", lambda: False))
    assert isinstance(events[-1], StateReady)
    ours, exported = live.state(plan), dict(merged_tensors(plan))
    assert all(torch.equal(ours[name], exported[name]) for name in exported)
    views = next(event.look.views for event in events if isinstance(event, LookReady))
    assert len(views[f"{Q0}.weight"].spectra[0].values) == 4
    assert not any(views["model.layers.0.mlp.up_proj.weight"].spectra[0].values)


# Where the base comes from


def config_of(folder: Path, **changes: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.fixture
def lone(tmp_path: Path) -> Path:
    """A folder with a base, another base and a hand-made adapter `a` that names no base."""
    make_family(tmp_path, 1, dtype=torch.float32, tokenizer=True)
    write_adapter(tmp_path / "a", {Q0: (32, 32), Q1: (32, 32)})
    return tmp_path


def test_an_adapter_alone_lies_over_the_base_that_it_names(lone: Path):
    config_of(lone / "a", base_model_name_or_path=str(lone / "helpful"))
    model = open_model("a", lone, base="base")
    assert model.over is not None
    assert model.over.folder.name == "helpful"
    assert "taken over" in model.notices[-1]
    config_of(lone / "a", base_model_name_or_path="base")
    assert open_model("a", lone, base="base").notices == ()


def test_else_over_the_recipes_base_and_that_is_said(lone: Path):
    config_of(lone / "a", base_model_name_or_path="/home/somebody/llama")
    found = check(parse_recipe("merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}]", lone))
    assert found.problems == ()
    assert found.plan is not None
    assert found.plan.experts[0].over is not None
    assert found.plan.experts[0].over.folder.name == "base"
    assert "taken over the recipe's base" in found.notices[0]
    with pytest.raises(UserError, match="cannot be opened") as caught:
        open_model("a", lone)
    assert caught.value.code == "E_ADAPTER_BASE"


def test_a_plus_in_a_folders_name_is_no_adapter(lone: Path):
    (lone / "base").rename(lone / "c++")
    (lone / "a").rename(lone / "lora+v2")
    assert open_model("c++", lone).over is None
    assert open_model("c++ +lora+v2".replace(" ", ""), lone).over is not None
    assert Expert("x/base+y/lora").name == "lora"
    assert Expert("base+lora").name == "lora"
    assert Expert("models/c++").name == "c++"


def test_names_with_the_adapters_own_name_and_without_prefix_are_read(lone: Path):
    wanted = open_model("base+a", lone).read(f"{Q0}.weight")
    tensors = load_file(lone / "a" / FILE)
    for change in (
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.removeprefix("base_model.model."),
        lambda name: name.removeprefix("base_model.model.model."),
        lambda name: name.replace("model.layers", "model.wrapped.layers").replace(
            "base_model.model.model.wrapped", "base_model.model.wrapped.model"
        ),
    ):
        save_file({change(name): tensor for name, tensor in tensors.items()}, lone / "a" / FILE)
        assert torch.equal(open_model("base+a", lone).read(f"{Q0}.weight"), wanted)


def test_the_fingerprint_tells_base_adapter_and_config_apart(lone: Path):
    prints = [open_model(source, lone).fingerprint for source in ("base+a", "helpful+a", "base", "base+a")]
    config_of(lone / "a", lora_alpha=9)
    prints.append(open_model("base+a", lone).fingerprint)
    assert len(set(prints)) == 4
    assert prints[0] == prints[3]


# Bad input


def change_file(folder: Path, **changes: Tensor | None) -> None:
    tensors = {**load_file(folder / FILE), **{f"base_model.model.{k}": v for k, v in changes.items() if v is not None}}
    for key in [f"base_model.model.{k}" for k, v in changes.items() if v is None]:
        del tensors[key]
    save_file(tensors, folder / FILE)


CONFIGS = [
    ({"peft_type": "IA3"}, "kind IA3, not LoRA"),
    ({"peft_type": "LOHA"}, "kind LOHA, not LoRA"),
    ({"peft_type": "PROMPT_TUNING"}, "kind PROMPT_TUNING"),
    ({"peft_type": None}, "peft_type is None"),
    ({"r": 0}, "r is 0; it must be a positive whole number"),
    ({"r": "4"}, "r is '4'"),
    ({"r": True}, "r is True"),
    ({"r": 8}, r"the config gives rank 8 \(r, rank_pattern\)"),
    ({"lora_alpha": "16"}, "lora_alpha is '16'"),
    ({"lora_alpha": 10**9}, "lora_alpha is 1000000000"),
    ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
    ({"use_dora": True}, "lora_magnitude_vector is missing"),
    ({"rank_pattern": ["q_proj"]}, "rank_pattern must give positive whole numbers"),
    ({"rank_pattern": {"q_proj": 0}}, "rank_pattern must give positive whole numbers"),
    ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern must give numbers"),
    ({"alpha_pattern": {"(a+)+$": 2}}, "repeated groups"),
    ({"alpha_pattern": {"(": 2}}, "it is no regular expression"),
    ({"init_lora_weights": "pissa_niter_4"}, "began as 'pissa_niter_4', which changes the base's own weights"),
    ({"init_lora_weights": "olora"}, "began as 'olora'"),
    ({"init_lora_weights": "loftq"}, "began as 'loftq'"),
    ({"layer_replication": [[0, 2]]}, "repeats layers"),
    ({"alora_invocation_tokens": [1]}, "only after certain tokens"),
    ({"use_qalora": True}, "it sets use_qalora"),
    ({"from_the_future": 1}, "it sets from_the_future"),
    ({"trainable_token_indices": "all"}, "must be a list of token ids"),
    ({"base_model_name_or_path": 7}, "base_model_name_or_path is 7"),
]


@pytest.mark.parametrize(("changes", "says"), CONFIGS)
def test_a_config_that_cannot_be_used_is_refused_by_name(lone: Path, changes: dict, says: str):
    config_of(lone / "a", **changes)
    with pytest.raises(UserError, match=says) as caught:
        open_model("base+a", lone)
    assert caught.value.parts == ()


def bare(text: str):
    return lambda f: (f / "adapter_config.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(bare("{"), "not JSON", id="no json"),
        pytest.param(bare("[]"), "not a JSON object", id="a list"),
        pytest.param(bare('{"peft_type": "LORA", "lora_alpha": 1e999}'), "lora_alpha is inf", id="infinity"),
        pytest.param(lambda f: (f / "adapter_config.json").unlink(), "this is not an adapter", id="no config"),
        pytest.param(lambda f: (f / FILE).unlink(), "there is no adapter_model.safetensors", id="no weights"),
        pytest.param(lambda f: (f / FILE).rename(f / "adapter_model.bin"), "Python pickle", id="pickle"),
        pytest.param(lambda f: (f / FILE).write_bytes(b"12345678"), "too short", id="damaged"),
        pytest.param(lambda f: save_file({}, f / FILE), "holds no tensors", id="empty"),
        pytest.param(lambda f: change_file(f, **{f"{Q0}.lora_A.weight": None}), "only a part of A, B", id="no A"),
        pytest.param(
            lambda f: change_file(f, **{f"{Q0}.lora_A.weight": torch.zeros(4, 40)}),
            "B A is 32 × 40, in the base 32 × 32: model.layers.0.self_attn.q_proj", id="wrong shape",
        ),
        pytest.param(
            lambda f: change_file(f, **{"model.layers.9.self_attn.q_proj.lora_A.weight": torch.zeros(4, 32)}),
            "fit no tensor of its base: model.layers.9.self_attn.q_proj.lora_A.weight", id="no such",
        ),
        pytest.param(
            lambda f: change_file(f, **{"model.embed_tokens.weight": torch.zeros(98, 32)}),
            "saved whole as 98 × 32, in the base 96 × 32: model.embed_tokens", id="resized",
        ),
        pytest.param(
            lambda f: change_file(f, **{f"{Q0}.lora_A.other.weight": torch.zeros(4, 32)}), "there twice", id="two",
        ),
        pytest.param(
            lambda f: change_file(f, **{"model.norm.weight": torch.zeros(32, dtype=torch.float8_e4m3fn)}),
            "not stored as numbers to merge", id="fp8",
        ),
        pytest.param(
            lambda f: change_file(f, **{f"{Q0}.lora_B.bias": torch.zeros(32)}), "fit no tensor of its base", id="bias",
        ),
    ],
)  # fmt: skip
def test_a_damaged_adapter_is_refused_by_what_is_wrong(lone: Path, damage, says: str):
    damage(lone / "a")
    with pytest.raises(UserError, match=says) as caught:
        open_model("base+a", lone)
    assert caught.value.parts == ()
    assert "Traceback" not in str(caught.value)


def test_numbers_that_are_none_are_told_by_name(lone: Path):
    change_file(lone / "a", **{f"{Q0}.lora_B.weight": torch.full((32, 4), torch.nan)})
    model = open_model("base+a", lone)
    with pytest.raises(UserError, match=r"q_proj\.lora_B\.wei.*no finite numbers"):
        model.read(f"{Q0}.weight")


def test_base_and_adapter_that_are_both_wrong_are_told_at_once(lone: Path):
    (lone / "base" / "config.json").unlink()
    config_of(lone / "a", r=0)
    with pytest.raises(UserError) as caught:
        open_model("base+a", lone)
    assert [part.code for part in caught.value.parts] == ["E_ADAPTER", "E_CONFIG"]
    with pytest.raises(UserError, match="no such folder"):
        open_model("nowhere+a", lone)


def test_the_export_names_both_and_no_path_of_this_machine(lone: Path):
    document = {"merge_method": "task_arithmetic", "base_model": str(lone / "base"),
                "models": [{"model": f"{lone / 'base'}+{lone / 'a'}"}]}  # fmt: skip
    plan = make_plan(parse_recipe(json.dumps(document), Path()))
    for _ in merge(plan, lone / "out"):
        pass
    assert "model: base+a\n" in (lone / "out" / "mergescope.yml").read_text()
    card = (lone / "out" / "README.md").read_text()
    assert "base_model:\n- base\n- a\n" in card
    assert not any(str(lone) in path.read_text() for path in (lone / "out").iterdir() if path.suffix != ".safetensors")
    with pytest.raises(UserError, match="must lie apart"):
        list(merge(plan, lone / "a" / "out"))


def test_check_shows_an_adapter_that_is_named_alone(lone: Path, capsys: pytest.CaptureFixture[str]):
    (lone / "r.yml").write_text("merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}]\n")
    assert main(["check", str(lone / "r.yml")]) == 0
    said = capsys.readouterr().out
    assert "a: fits the base." in said
    assert "a: a LoRA adapter of a base it does not name, rank 4, alpha 8" in said
    assert "taken over the recipe's base" in said


def test_check_knows_peft_s_defaults(lone: Path, capsys: pytest.CaptureFixture[str]):
    (lone / "a" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({name: torch.cat([tensor] * 2, dim=0 if "lora_A" in name else 1).contiguous()
               for name, tensor in load_file(lone / "a" / FILE).items()}, lone / "a" / FILE)  # fmt: skip
    (lone / "r.yml").write_text("merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: base+a}]\n")
    assert main(["check", str(lone / "r.yml")]) == 0
    assert "base+a: a LoRA adapter of a base it does not name, rank 8, alpha 8" in capsys.readouterr().out
