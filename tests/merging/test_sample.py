"""The first map of a large family: held against the exact measures, and shown before them."""

import pytest
import torch

from benchmarks import family as synthetic
from merging import analysis
from merging.checkpoint import Checkpoint, open_checkpoint
from merging.live import LiveMerge
from merging.live_events import FocusReady, LookReady, SampleReady, Stale, StateReady
from merging.look import family_of, place
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from merging.sample import PIECE, Sample, starts
from tests.pico import make_family

NAMES = ("helpful", "honest", "harmless")
DOWN = "model.layers.1.mlp.down_proj.weight"


def models(folder, names):
    return open_checkpoint("base", folder), [open_checkpoint(name, folder) for name in names]


def test_pieces_lie_one_in_each_stratum():
    assert starts(1000) == starts(32 * PIECE) == [0]
    found = starts(1024 * 1536)
    assert len(found) == 48
    assert all(i * 16 * PIECE <= at <= (i + 1) * 16 * PIECE - PIECE for i, at in enumerate(found))
    odd = starts(100_003)  # a stratum is 100003 // 32 = 3125 entries
    assert all(i * 3125 <= at <= 100_003 - PIECE for i, at in enumerate(odd))
    assert len(odd) == 32


def test_sampled_measures_lie_within_the_stated_bound(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.SIZES, "one", (1024, 1536, 1, 64, 8, 8))
    folder, names = synthetic.make_family("one", tmp_path), synthetic.EXPERTS
    base, experts = models(folder, names)
    family = family_of(names, base.shapes)
    sample = Sample(family, base, experts)
    for matrix in family.matrices:
        sample.learn(matrix)
    look = sample.look("digest", 0.0)
    assert look.tier == "sample"
    assert set(look.conflicts) == {"sign", "cosine"}
    for matrix in family.matrices:
        below = base.read(matrix.name).float()
        deltas = [expert.read(matrix.name).float() - below for expert in experts]
        at = place(family, matrix)
        for row, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
            cosine = analysis.cosine(deltas[a], deltas[b])
            assert cosine > 0.06  # more than the bound, so that there is something to tell
            assert abs(look.conflicts["cosine"].values[row, *at] - cosine) < 0.05
            assert abs(look.conflicts["sign"].values[row, *at] - analysis.sign_conflict(deltas[a], deltas[b])) < 0.02


def test_a_small_matrix_is_measured_whole(tmp_path):
    make_family(tmp_path)
    base, experts = models(tmp_path, NAMES)
    family = family_of(NAMES, base.shapes)
    sample = Sample(family, base, experts)
    for matrix in family.matrices:
        sample.learn(matrix)
    at = place(family, next(m for m in family.matrices if m.name == DOWN))
    deltas = [expert.read(DOWN).float() - base.read(DOWN).float() for expert in experts[:2]]
    found = sample.look("", 0.0).conflicts["cosine"].values[0, *at]
    assert found == pytest.approx(analysis.cosine(*deltas), abs=1e-6)


class TestLive:
    def plan(self, folder, weight=1.0):
        experts = (Expert(NAMES[0], (("weight", weight),)), *map(Expert, NAMES[1:]))
        return make_plan(Recipe("task_arithmetic", "base", experts, folder=folder))

    def live(self, folder, cache=None, whole=0, names=NAMES):
        base, experts = models(folder, names)
        return LiveMerge(base, experts, names, cache, whole, 99.0)

    def kinds(self, live, plan):
        return [type(event) for event in live.move(plan, None, lambda: False)]

    def test_before_the_exact_look_once_and_kept_nowhere(self, tmp_path):
        make_family(tmp_path)
        live, cache = self.live(tmp_path, tmp_path / "cache"), tmp_path / "cache"
        moving = live.move(self.plan(tmp_path), None, lambda: False)
        assert isinstance(next(moving), Stale)
        event = next(moving)
        assert isinstance(event, SampleReady)
        assert event.look.tier == "sample"
        assert event.look.views == {}
        assert not list(cache.rglob("*"))
        opened = next(moving)
        assert isinstance(opened, FocusReady)
        assert opened.view.matrix == event.look.opened(None)
        maps = next(moving)
        assert isinstance(maps, SampleReady)
        assert (maps.look.tier, maps.look.views) == ("maps", {})
        assert len(list((cache / "factors").glob("*"))) < 14 * 3  # the open matrix's at most
        exact = next(moving)
        assert isinstance(exact, LookReady)
        assert exact.look.tier == "exact"
        assert len(exact.look.views) == 14
        for measure, conflict in maps.look.conflicts.items():
            assert conflict.values.tolist() == exact.look.conflicts[measure].values.tolist()
        assert [type(event) for event in moving] == [StateReady]
        assert self.kinds(live, self.plan(tmp_path, 0.5)) == [Stale, LookReady, StateReady]
        assert SampleReady not in self.kinds(self.live(tmp_path, cache), self.plan(tmp_path))

    def test_a_move_that_comes_meanwhile_ends_it_and_gets_the_same_one(self, tmp_path, monkeypatch):
        make_family(tmp_path)
        live, plan = self.live(tmp_path), self.plan(tmp_path)
        assert [type(event) for event in live.move(plan, None, lambda: True)] == [Stale]
        first = list(live.move(plan, None, lambda: False))[1]
        live = self.live(tmp_path)
        cut = live.move(plan, None, lambda: False)
        assert [type(next(cut)) for _ in range(2)] == [Stale, SampleReady]
        del cut
        read = []
        plain = Checkpoint.parts
        monkeypatch.setattr(Checkpoint, "parts", lambda self, name: read.append(name) or plain(self, name))
        again = live.move(plan, None, lambda: False)
        next(again)
        second = next(again)
        assert read == []
        assert isinstance(first, SampleReady)
        assert isinstance(second, SampleReady)
        for measure, conflict in first.look.conflicts.items():
            assert torch.equal(*(torch.tensor(c.values) for c in (conflict, second.look.conflicts[measure])))

    def test_not_of_a_family_that_is_held_whole_nor_of_one_expert(self, tmp_path):
        make_family(tmp_path)
        assert self.kinds(self.live(tmp_path, whole=1 << 40), self.plan(tmp_path)) == [Stale, LookReady, StateReady]
        alone = make_plan(Recipe("task_arithmetic", "base", (Expert("honest"),), folder=tmp_path))
        assert self.kinds(self.live(tmp_path, names=("honest",)), alone) == [Stale, LookReady, StateReady]
