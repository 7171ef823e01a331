"""SMILE against its formula written out token by token in float64, and at both ends of every setting."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from eval.running.chat import Answered, Decoding, Mixing, Routing, converse
from eval.running.mixed import Mixed, mixture_of
from eval.running.models import Model, Models
from eval.running.side_path import twin
from eval.running.smile import Branches, Mixture
from eval.scoring.score import Asked, Scored, score
from merging.checkpoint import TensorInfo, open_checkpoint
from merging.decompose import SVD, svd
from merging.errors import UserError
from merging.live import LiveMerge
from merging.plan import make_plan
from merging.recipe import parse_recipe
from tests.pico import make_family

NAMES = ("helpful", "honest", "harmless")
WORDS = torch.tensor([[6, 20, 30, 7]])


def deltas(n: int = 3, shape: tuple[int, int] = (6, 8)) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(n)]


def plain(x: Tensor, experts: list[Tensor], mixing: Mixing) -> Tensor:
    """One token (n,) by the paper's formula, each expert's part as a dense matrix."""
    gates, parts = [], []
    for delta in experts:
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        gates.append(float((vh[: mixing.gate_rank] @ x).norm()))
        parts.append((u[:, : mixing.rank] @ torch.diag(s[: mixing.rank]) @ vh[: mixing.rank]) @ x)
    p = torch.tensor(gates, dtype=torch.float64).softmax(0)
    chosen = sorted(range(len(experts)), key=lambda t: -float(p[t]))[: mixing.top]
    return sum((p[t] / p[chosen].sum() * parts[t] for t in chosen), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 3, 6, 512])
@pytest.mark.parametrize("gate_rank", [1, 4, 512])
@pytest.mark.parametrize("top", [1, 2, 3, 6])
def test_each_token_gets_what_the_formula_says(rank: int, gate_rank: int, top: int):
    mixing, experts = Mixing(rank, gate_rank, top), deltas()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    added, weights, _ = Branches([svd(one, mixing.most) for one in experts], mixing, experts[0])(x)
    expected = torch.stack([plain(one, experts, mixing) for one in x.flatten(0, 1)]).view(2, 5, 6)
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5, dtype=torch.float64))
    assert int((weights > 0).sum(-1).unique()) == min(top, 3)


def test_a_gate_is_the_length_along_the_first_directions_by_hand():
    """x = (3, 4): along input 0 it is 3 long, along input 1 it is 4. The other side of a part does not count."""
    eye, one = torch.eye(2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    parts = [SVD(eye[:, 1:], 5 * one, eye[:, :1]), SVD(eye[:, :1], 7 * one, eye[:, 1:])]
    added, weights, gates = Branches(parts, Mixing(1, 1, 1), eye)(torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert (added.tolist(), weights.tolist(), gates.tolist()) == ([28, 0], [0, 1], [3, 4])
    nothing = SVD(eye[:, :1], 0 * one, eye[:, 1:])  # its directions are arbitrary
    added, _, gates = Branches([parts[0], nothing], Mixing(1, 1, 1), eye)(torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert (added.tolist(), gates.tolist()) == ([0, 15], [3, 0])


def test_a_gate_that_sees_every_direction_tells_experts_apart_no_more():
    experts = deltas(shape=(9, 8))
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    _, weights, gates = Branches([svd(one) for one in experts], Mixing(1, 8, 3), experts[0])(x)
    torch.testing.assert_close(gates, x.norm(dim=-1, keepdim=True).expand(4, 3))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))


def test_a_matrix_stored_transposed_is_read_from_its_other_side():
    experts, mixing = deltas(2), Mixing(3, 2, 2)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    one, _, _ = Branches([svd(delta) for delta in experts], mixing, experts[0])(x)
    other, _, _ = Branches([svd(delta.T) for delta in experts], mixing, experts[0], transposed=True)(x)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    make_family(folder, tokenizer=True)
    return folder


def source(family: Path, mixing: Mixing, names: tuple[str, ...] = NAMES) -> Mixed:
    base, *experts = (open_checkpoint(name, family) for name in ("base", *names))
    live = LiveMerge(base, experts, names)
    matrices = tuple(matrix.name for matrix in live.family.matrices)
    return Mixed(base, tuple(experts), mixing, matrices, live.triplets)


@torch.no_grad()
def logits(module) -> Tensor:
    return module(input_ids=WORDS).logits


def held(models: Models, family: Path, name: str) -> Model:
    return models.model(open_checkpoint(name, family))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_expert_alone_at_full_rank_is_the_base_with_its_matrices(kind: str):
    size = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "n_embd": 32, "n_layer": 2, "n_head": 4}  # fmt: skip
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **size)).double().eval()
    expert, random = twin(base), torch.Generator().manual_seed(4)
    changed = {}
    for name, own in expert.named_parameters():
        if own.dim() == 2 and (".layers." in name or ".h." in name):
            changed[name] = 0.1 * torch.randn(own.shape, generator=random, dtype=torch.float64)
            own.data = own.data + changed[name]
    triplets = {name: [svd(delta)] for name, delta in changed.items()}
    mixture = Mixture(base, triplets, Mixing(512, 1, 1))
    torch.testing.assert_close(logits(mixture.module), logits(expert), rtol=0, atol=1e-10)
    assert float((logits(expert) - logits(base)).abs().max()) > 1e-3
    twice = Mixture(base, {name: [*own, *own] for name, own in triplets.items()}, Mixing(512, 8, 2))
    torch.testing.assert_close(logits(twice.module), logits(expert), rtol=0, atol=1e-10)
    assert twice.choice()[0] == (0.5, 0.5)


def test_in_memory_it_shares_the_base_and_another_setting_replaces_it(family: Path):
    models = Models("cpu")
    base = held(models, family, "base")
    mixed = source(family, Mixing(4, 2, 1))
    first = models.model(mixed)
    assert models.model(mixed) is first
    assert {p.data_ptr() for p in first.module.parameters()} == {p.data_ptr() for p in base.module.parameters()}
    own = models.room.need([mixed]) - models.room.need([mixed.base])
    parts = [tensor for tensor in first.tensors() if not isinstance(tensor, torch.nn.Parameter)]
    assert 0.9 * own < 4 * sum(part.numel() for part in parts) <= own  # the estimate counts x too
    second = models.model(source(family, Mixing(8, 2, 1)))
    assert not torch.equal(logits(second.module), logits(first.module))
    assert len([one for one in models._held if one.startswith("mixture")]) == 1


def test_an_answer_says_token_by_token_who_is_in_it(family: Path):
    models = {"mixture": Models("cpu").model(source(family, Mixing(4, 2, 1)))}
    turns = {"mixture": [{"role": "user", "content": "w20 w30"}]}
    *_, routing, answered = converse(models, turns, Decoding(max_new_tokens=6), lambda: False, NAMES)
    assert isinstance(routing, Routing)
    assert isinstance(answered, Answered)
    assert "".join(part.text for part in routing.parts).strip() == answered.text
    assert len(routing.parts) == 6
    assert list(routing.shares) == list(NAMES)
    for part in routing.parts:
        assert sum(part.shares) == pytest.approx(1)
        assert all(0 <= gate < 100 for gate in part.scores)
    assert sum(routing.shares.values()) == pytest.approx(1)


def test_settings_below_one_are_refused():
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(UserError, match="at least 1"):
            Mixing(*wrong)


def test_what_a_mixture_costs_by_hand(family):
    """One matrix (3, 5) and two experts at rank 2 beside 15 products a token: 2 x 2 x (3 + 5) = 32 more."""
    info = TensorInfo((3, 5), "F32")
    base = replace(open_checkpoint("base", family), tensors={"w": info})
    mixed = Mixed(base, (base, base), Mixing(rank=2, gate_rank=1), ("w",), dict)
    assert mixed.work == 1 + 32 / 15
    assert replace(mixed, mixing=Mixing(rank=9)).work == 1 + 2 * 3 * 8 / 15  # no more directions than it has


def test_a_mixture_is_scored_beside_the_merge_and_kept(tmp_path, monkeypatch, request):
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path))
    town, path = request.config.rootpath / "assets" / "town", tmp_path / "recipe.yml"
    path.write_text(f"merge_method: linear\nbase_model: {town}/base\nmodels: [{{model: {town}/harmless}}]\n")

    def scored(rank):
        events = list(score(str(path), split="screen", device="cpu", mixing=Mixing(rank=rank)))
        asked = sum(isinstance(event, Asked) and event.model == "mixture" for event in events)
        return {event.model: event for event in events if isinstance(event, Scored)}, asked

    found, asked = scored(128)
    assert list(found) == ["merge", "mixture"]
    assert asked > 1
    # one expert has all the weight, so that at full rank only embedding and norms are the base's
    assert found["mixture"].scores.harmless.score > 0.5
    again, asked = scored(128)
    assert again["mixture"] == found["mixture"]
    assert asked == 1, "answered from what was kept"
    assert scored(1)[1] > 1, "another mixture"
    with pytest.raises(UserError, match="needs a recipe"):
        list(score(f"{town}/base", split="screen", mixing=Mixing()))


def test_a_score_takes_exact_triplets_however_large_the_family_is(family):
    """Those of `torch.linalg.svd`, at the rank asked for: no budget of the screen cuts them."""
    text = "merge_method: linear\nbase_model: base\nmodels: [{model: helpful}, {model: honest}]\n"
    mixed = mixture_of(make_plan(parse_recipe(text, family)), Mixing(rank=16))
    found = mixed.triplets(16)
    assert tuple(found) == mixed.matrices
    base, *experts = (open_checkpoint(name, family) for name in ("base", "helpful", "honest"))
    for name, parts in found.items():
        for part, expert in zip(parts, experts, strict=True):
            delta = expert.read(name).double() - base.read(name).double()
            u, s, v = torch.linalg.svd(delta, full_matrices=False)
            k = len(part.s)
            assert k == min(16, *delta.shape)
            best = (u[:, :k] * s[:k]) @ v[:k]
            assert ((part.u * part.s) @ part.v.T - best).norm() < 1e-3 * best.norm()
