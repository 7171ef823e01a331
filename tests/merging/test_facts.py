"""The profile of a family's deltas: by hand, against the plain measures, and over a second start."""

import math

import pytest
import torch

from merging import analysis
from merging.checkpoint import open_checkpoint
from merging.facts import Profile, facts_of
from merging.look import family_of
from merging.store import Store
from tests.pico import make_family

NAMES = ("helpful", "honest", "harmless")
DOWN = "model.layers.1.mlp.down_proj.weight"


def test_facts_by_hand():
    base = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    deltas = torch.tensor([[[1.0, -2.0], [0.0, 2.0]], [[1.0, 2.0], [4.0, 0.0]]])
    facts = facts_of(base, deltas)
    assert facts.base_norm == 5
    assert facts.deltas[0].norm == pytest.approx(3)
    assert facts.deltas[0].rows.tolist() == pytest.approx([5**0.5, 2])
    assert facts.deltas[0].counts.tolist() == [1, 1, 2]  # of the magnitudes 0, 1 and 2
    assert facts.deltas[0].sums.tolist() == [0, 1, 4]
    pair = facts.pairs[0, 1]
    assert (pair.dot, pair.both, pair.opposite) == (-3, 2, 1)
    assert pair.sign_conflict == 0.5
    assert facts.cosine(0, 1) == pytest.approx(-3 / 3 / 21**0.5)
    tail = facts.deltas[0].tail("helpful", facts.base_norm, kappa=0.0, eta=1.0)
    assert (tail.threshold, tail.entries, tail.mass, tail.sparsity) == (1.25, 0.5, 0.8, 0.5)
    assert tail.norm_ratio == pytest.approx(0.6)


def test_an_expert_that_moved_nothing():
    facts = facts_of(torch.ones(2, 3), torch.stack([torch.zeros(2, 3), torch.ones(2, 3)]))
    assert math.isnan(facts.cosine(0, 1))
    assert math.isnan(facts.pairs[0, 1].sign_conflict)
    tail = facts.deltas[0].tail("idle", facts.base_norm, kappa=3.0, eta=0.1)
    assert (tail.mass, tail.entries, tail.sparsity, tail.norm_ratio) == (0, 0, 0, 0)


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 1e-6), (torch.float32, 0.01)])
@pytest.mark.parametrize(("kappa", "eta"), [(3.0, 0.1), (0.5, 0.9)])
def test_measures_are_those_of_the_deltas(tmp_path, dtype, close, kappa, eta):
    make_family(tmp_path, dtype=dtype)
    base, *experts = (open_checkpoint(name, tmp_path).read(DOWN) for name in ("base", *NAMES))
    deltas = torch.stack([expert.float() - base.float() for expert in experts])
    facts = facts_of(base, deltas)
    for (a, b), pair in facts.pairs.items():
        assert pair.sign_conflict == analysis.sign_conflict(deltas[a], deltas[b])
        exact = torch.cosine_similarity(deltas[a].double().flatten(), deltas[b].double().flatten(), 0)
        assert facts.cosine(a, b) == pytest.approx(exact.item(), abs=1e-6)
    for t, delta in enumerate(deltas):
        ours = facts.deltas[t].tail("x", facts.base_norm, kappa=kappa, eta=eta)
        plain = analysis.tail("x", delta.double(), float(base.double().norm()), kappa=kappa, eta=eta)
        for field in ("threshold", "norm_ratio"):
            assert getattr(ours, field) == pytest.approx(getattr(plain, field), rel=1e-5)
        for field in ("entries", "mass", "sparsity"):
            assert getattr(ours, field) == pytest.approx(getattr(plain, field), abs=close)


class TestOnDisk:
    def profile(self, folder, store, names=NAMES):
        base, *experts = (open_checkpoint(name, folder) for name in ("base", *names))
        matrices = [m.name for m in family_of(names, base.shapes).matrices]
        return base, experts, matrices, Profile(base, experts, matrices, store)

    def learnt(self, folder, store):
        base, experts, matrices, profile = self.profile(folder, store)
        for name in matrices:
            below = base.read(name)
            profile.learn(name, below, torch.stack([e.read(name).float() - below.float() for e in experts]))
        return profile

    def test_a_second_start_knows_everything_and_reads_no_weight(self, tmp_path):
        make_family(tmp_path)
        first = self.learnt(tmp_path, Store(tmp_path / "cache"))
        _, _, matrices, second = self.profile(tmp_path, Store(tmp_path / "cache"))
        for name in matrices:
            ours, kept = first.get(name), second.get(name)
            assert ours is not None
            assert kept is not None
            assert ours.pairs == kept.pairs
            assert ours.base_norm == kept.base_norm
            for mine, theirs in zip(ours.deltas, kept.deltas, strict=True):
                assert mine.tail("x", 1.0, kappa=2.0, eta=0.5) == theirs.tail("x", 1.0, kappa=2.0, eta=0.5)
                assert torch.equal(mine.rows, theirs.rows)

    def test_fewer_experts_in_another_order_need_nothing_new(self, tmp_path):
        make_family(tmp_path)
        self.learnt(tmp_path, Store(tmp_path / "cache"))
        assert self.profile(tmp_path, Store(tmp_path / "cache"), NAMES[:2])[3].get(DOWN)
        assert self.profile(tmp_path, Store(tmp_path / "cache"), NAMES[:2][::-1])[3].get(DOWN)

    def test_until_every_matrix_is_known_nothing_is_written(self, tmp_path):
        make_family(tmp_path)
        base, experts, _, profile = self.profile(tmp_path, Store(tmp_path / "cache"))
        below = base.read(DOWN)
        profile.learn(DOWN, below, torch.stack([e.read(DOWN).float() - below.float() for e in experts]))
        assert not list(tmp_path.glob("cache/*"))

    def test_another_model_in_the_folder_is_not_taken_for_the_old_one(self, tmp_path):
        make_family(tmp_path)
        self.learnt(tmp_path, Store(tmp_path / "cache"))
        make_family(tmp_path, seed=7)
        assert self.profile(tmp_path, Store(tmp_path / "cache"))[3].get(DOWN) is None

    @pytest.mark.parametrize("harm", [lambda data: data[:-7], lambda data: b"", lambda data: b"\xff" * 64 + data[64:]])
    def test_a_damaged_file_is_written_anew(self, tmp_path, harm):
        make_family(tmp_path)
        self.learnt(tmp_path, Store(tmp_path / "cache"))
        files = {path: path.read_bytes() for path in tmp_path.glob("cache/*.safetensors")}
        assert len(files) == 6  # three experts, three pairs
        for path, data in files.items():
            path.write_bytes(harm(data))
            assert self.profile(tmp_path, Store(tmp_path / "cache"))[3].get(DOWN) is None
            self.learnt(tmp_path, Store(tmp_path / "cache"))
            assert path.read_bytes() == data


def test_the_store_drops_what_was_not_used_for_longest(tmp_path):
    store = Store(tmp_path / "cache")
    for key in ("a", "b", "c"):
        store.save(key, {"x": torch.zeros(1000)})
    assert store.load("a")
    store.trim(9000)
    assert [store.load(key) is not None for key in ("a", "b", "c")] == [True, False, True]


def test_what_a_killed_process_left_half_written_goes_too(tmp_path):
    store = Store(tmp_path)
    (tmp_path / ".abc.new").write_bytes(bytes(5000))
    store.save("a", {"x": torch.zeros(1000)})
    store.trim(5000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "cache")
    store.save("a", {"x": torch.zeros(3)})
    store.trim(0)
    assert store.load("a") is None
