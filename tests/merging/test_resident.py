"""Big families: triplets in float16 on disk, deltas read when needed. Held against the whole family in memory."""

import ctypes
import os
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.measured import anonymous
from merging import blocks, pieces, resident
from merging.checkpoint import Checkpoint, open_checkpoint
from merging.live import LiveMerge
from merging.live_events import FoldedReady, LookReady, StateReady
from merging.look import Limit
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from merging.resident import BUDGET, WHOLE, Deltas, Packed, folds_bytes, give_back, limits, needed, room_for
from tests.pico import make_family

NAMES = ("helpful", "honest", "harmless")
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    make_family(folder, tied=True, dtype=torch.float32)
    return folder


def live(folder, cache, whole, budget=99.0):
    experts = [open_checkpoint(n, folder) for n in NAMES]
    return LiveMerge(open_checkpoint("base", folder), experts, NAMES, cache, whole, budget)


def plan_of(folder, method="resm", weights=(1.0, 1.0, 1.0), **parameters):
    experts = tuple(Expert(name, (("weight", weight),)) for name, weight in zip(NAMES, weights, strict=True))
    return make_plan(Recipe(method, "base", experts, tuple(parameters.items()), folder=folder))


def look_of(merge, plan):
    events = list(merge.move(plan, DOWN, lambda: False))
    assert isinstance(events[-1], StateReady)
    return next(event.look for event in events if isinstance(event, LookReady))


MOVES = [
    {},
    {"weights": (0.5, -1.0, 2.0)},
    {"weights": (0.0, 1.0, 1.0)},  # two experts keep more directions each than are stored
    {"rank_budget": 0.4},
    {"outlier_mode": "layer_suppress"},
    {"rank_mode": "energy", "energy": 0.7},
    {"rank_mode": "sparsity_budget"},
    {"space": "core"},
    {"shaper": "star"},
    {"method": "tsv_m"},
    {"method": "tsv_m", "exclude": ("*k_proj*",)},
    {"method": "iso_c"},
    {"method": "ties"},
    {"method": "linear"},
]


@pytest.mark.parametrize("cached", [True, False])
def test_a_lean_family_shows_and_merges_what_a_whole_one_does(family, tmp_path, cached):
    whole, lean = live(family, None, 1 << 40), live(family, tmp_path if cached else None, 0)
    for change in MOVES:
        plan = plan_of(family, **change)
        wanted, found = look_of(whole, plan), look_of(lean, plan)
        for measure, conflict in wanted.conflicts.items():
            torch.testing.assert_close(
                torch.tensor(found.conflicts[measure].values), torch.tensor(conflict.values), atol=3e-3, rtol=0,
                equal_nan=True, msg=lambda text, m=measure, c=change: f"{c} {m}: {text}",
            )  # fmt: skip
        for name, view in wanted.views.items():
            ours = found.views[name]
            assert [s.kept for s in ours.spectra] == [s.kept for s in view.spectra], change
            assert ours.tails == view.tails
            for mine, theirs in zip(ours.spectra, view.spectra, strict=True):
                assert mine.values == pytest.approx(theirs.values, abs=1e-3 * float(theirs.values[0]))
        base, state, other = open_checkpoint("base", family), lean.state(plan), whole.state(plan)
        for name, tensor in other.items():
            delta = (tensor - base.read(name)).norm()
            assert float((state[name] - tensor).norm()) <= 2e-3 * float(delta) + 1e-6, (change, name)


def test_a_second_start_and_a_weight_move_read_no_weights_for_their_pictures(family, tmp_path, monkeypatch):
    look_of(live(family, tmp_path, 0), plan_of(family, outlier_mode="none"))
    read = []
    plain = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: read.append(name) or plain(self, name))
    second = live(family, tmp_path, 0)
    second._held.matrix(DOWN)
    assert read == []
    moves = second.move(plan_of(family, outlier_mode="none"), DOWN, lambda: False)
    list(moves)
    read.clear()
    moves = second.move(plan_of(family, "resm", (0.5, 1, 2), outlier_mode="none"), DOWN, bool)
    next(event for event in moves if isinstance(event, LookReady))
    assert read == []


def test_a_damaged_factor_file_is_made_anew(family, tmp_path):
    plan = plan_of(family)
    wanted = look_of(live(family, tmp_path, 0), plan)
    files = sorted((tmp_path / "factors").glob("*.safetensors"))
    assert len(files) == 3 * 14
    for path, data in zip(files[:3], (b"", b"\xff" * 99, files[2].read_bytes()[:-9]), strict=True):
        path.unlink()
        path.write_bytes(data)
    found = look_of(live(family, tmp_path, 0), plan)
    assert found.views[DOWN].spectra[-1].values.tolist() == wanted.views[DOWN].spectra[-1].values.tolist()
    assert all(path.stat().st_size > 100 for path in files)


def test_kept_factors_grow_where_fewer_experts_share_the_rank(family, tmp_path):
    def kept(names):
        models = [open_checkpoint(name, family) for name in ("base", *names)]
        list(LiveMerge(models[0], models[1:], names, tmp_path, 0, 99.0).triplets(1))
        return {path: len(load_file(path)["s"]) for path in (tmp_path / "factors").glob("*.safetensors")}

    three, two = kept(NAMES), kept(NAMES[:2])
    assert three.keys() == two.keys()
    assert sum(two[path] > n for path, n in three.items()) == 2 * len(three) / 3
    assert kept(NAMES) == two, "what is there serves a smaller share"


def test_factors_of_another_family_go_first_where_the_disk_budget_is_full(family, tmp_path, monkeypatch):
    look_of(live(family, tmp_path, 0), plan_of(family))
    own = {path: path.stat().st_size for path in (tmp_path / "factors").glob("*.safetensors")}
    other = tmp_path / "factors" / "other.safetensors"
    other.write_bytes(bytes(100))
    os.utime(min(own), (0, 0))  # longer unused than the other's, but for the move that follows
    os.utime(other, (1, 1))
    monkeypatch.setattr(resident, "DISK", sum(own.values()))
    look_of(live(family, tmp_path, 0), plan_of(family))
    assert not other.exists()
    assert all(path.exists() for path in own)


def test_factors_are_kept_by_content_and_not_by_place(family, tmp_path):
    def files(*names):
        models = [open_checkpoint(name, family) for name in ("base", *names)]
        LiveMerge(models[0], models[1:], names, tmp_path, 0, 99.0).triplets(4)
        return len(list((tmp_path / "factors").glob("*.safetensors")))

    assert [files(*names) for names in (NAMES[:2], NAMES[1::-1], NAMES[2:])] == [2 * 14, 2 * 14, 3 * 14]


def test_a_cancelled_move_leaves_the_last_merge(family, tmp_path):
    lean, first = live(family, tmp_path, 0), plan_of(family)
    look_of(lean, first)
    before = lean.state(first)
    assert not any(isinstance(e, LookReady) for e in lean.move(plan_of(family, rank_budget=0.5), None, lambda: True))
    assert lean.state(first) is before


def test_deltas_are_read_once_and_let_go():
    reads = []
    stack = torch.arange(12.0).view(3, 2, 2)
    deltas = Deltas((3, 2, 2), lambda: reads.append(1) or stack)
    assert len(deltas) == 3
    assert reads == []
    some, one = deltas[[2, 0]], deltas[1]
    assert isinstance(some, Deltas)
    assert isinstance(one, torch.Tensor)
    assert torch.equal(some.tensor(), stack[[2, 0]])
    assert torch.equal(one, stack[1])
    assert reads == [1]
    deltas.release()
    deltas.tensor()
    assert reads == [1, 1]


def test_packed_triplets_come_as_float32():
    packed = Packed(torch.eye(3).half(), torch.tensor([3.0, 2.0, 1.0]), torch.eye(3).half()).head(2)
    assert packed.u.dtype == packed.v.dtype == torch.float32
    assert (packed.u.shape, packed.s.tolist(), packed.v.shape) == ((3, 2), [3, 2], (3, 2))


def test_what_the_budget_has_no_room_for_is_left_out_and_said(family, tmp_path):
    base = open_checkpoint("base", family)
    matrices = [i.shape for n, i in base.tensors.items() if ".layers." in n and len(i.shape) == 2]
    per_hundredth = 2 * sum((m + n) * min(m, n) for m, n in matrices) / 100
    model = sum(4 * torch.Size(info.shape).numel() for info in base.tensors.values())
    lean = live(family, tmp_path, 0, budget=30.5 * per_hundredth / model)
    uniform = {"rank_mode": "uniform", "outlier_mode": "none"}
    asked, fits = plan_of(family, rank_budget=0.6, **uniform), plan_of(family, rank_budget=0.3, **uniform)
    found, wanted = look_of(lean, asked), look_of(live(family, None, 1 << 40), fits)
    assert found.limit == Limit(shown=0.3, asked=0.6)
    assert wanted.limit is None
    for name, view in wanted.views.items():
        assert [s.kept for s in found.views[name].spectra] == [s.kept for s in view.spectra]
        assert found.views[name].spectra[-1].values == pytest.approx(view.spectra[-1].values, rel=2e-3)
    assert look_of(lean, fits).limit is None
    assert look_of(lean, plan_of(family, "tsv_m")).limit == Limit(0.3, 1.0)
    two = plan_of(family, weights=(0.0, 1.0, 1.0), rank_budget=0.3, **uniform)  # half of the budget each, a third held
    assert look_of(lean, two).limit == Limit(0.2, 0.3)
    held = sum(path.stat().st_size for path in (tmp_path / "factors").glob("*.safetensors"))
    assert held < 31 * per_hundredth + 42 * 1000  # headers and spectra: less than a kilobyte a file


def test_a_family_that_is_held_whole_needs_no_budget(family):
    whole = live(family, None, 1 << 40, budget=0.0)
    assert look_of(whole, plan_of(family, weights=(0.0, 1.0, 1.0), rank_mode="uniform")).limit is None


def test_the_share_of_the_rank_that_fits_by_hand(family):
    base = open_checkpoint("base", family)
    model = sum(4 * torch.Size(info.shape).numel() for info in base.tensors.values())
    # (30 + 10) x 10 numbers of 2 bytes at full rank
    assert room_for(base, [(30, 10)], 400 / model) == 0.5
    assert room_for(base, [(30, 10)], 799 / model) == 0.99
    assert room_for(base, [(30, 10)], 900 / model) == 1.0
    assert room_for(base, [], 0.4) == 1.0


def test_bytes_of_a_whole_family_by_hand():
    assert needed([(2, 3), (5,)], 3) == 4 * 3 * (6 + 5 * 2 + 5)


def test_what_a_device_has_room_for_by_hand():
    assert limits(10**9, None) == limits(10**9, 100 * 10**9) == (WHOLE, BUDGET)
    assert limits(10**9, 400 << 20) == (100 << 20, (400 << 20) / (2 * 10**9))
    # (30 + 10) x 10 numbers of 4 bytes, and a quarter of them
    assert (folds_bytes([(30, 10)]), folds_bytes([(30, 10)], 0.25)) == (1600, 400)


def test_the_folds_of_two_moves_are_not_held_at_a_time(family):
    merge = live(family, None, 0)
    plan = plan_of(family, rank_mode="uniform", rank_budget=0.6)
    for event in merge.move(plan, None, lambda: False):
        if isinstance(event, FoldedReady):
            assert merge._folded is not None
            old = [weakref.ref(fold.u) for fold in merge._folded.folds.values()]
    for event in merge.move(plan_of(family, rank_mode="uniform", rank_budget=0.3), None, lambda: False):
        if isinstance(event, LookReady):
            assert [one() for one in old] == [None] * len(old)


def test_a_move_waits_for_a_piece_of_an_embedding_not_for_all_of_it(family, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 256)
    monkeypatch.setattr(pieces, "PIECE", 256)  # of 96 x 32 entries
    opened, embedding, plain = [], "model.embed_tokens.weight", Checkpoint.parts
    monkeypatch.setattr(Checkpoint, "parts", lambda self, name: opened.append(name) or plain(self, name))
    merge, plan = live(family, None, 0), plan_of(family, exclude=("*embed*",))
    events = list(merge.move(plan, DOWN, lambda: embedding in opened))
    assert isinstance(events[-1], LookReady)
    assert opened.count(embedding) == 4  # one piece of base and experts
    whole = live(family, None, 1 << 40).state(plan)[embedding]
    assert torch.equal(merge.state(plan)[embedding], whole)
    assert opened.count(embedding) == 4 + 12 * 4


@pytest.mark.parametrize(("limit", "rests", "last"), [(0, 1, LookReady), (1 << 40, 0, StateReady)])
def test_before_a_large_familys_weights_there_is_a_rest(family, limit, rests, last):
    resting = []
    events = live(family, None, limit).move(
        plan_of(family), DOWN, lambda: bool(resting), rest=partial(resting.append, True)
    )
    assert isinstance([*events][-1], last)
    assert len(resting) == rests


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_freed_memory_is_given_back():
    torch.zeros(8 << 20).add_(1)  # 32 MB: once it is freed, glibc keeps what is smaller
    many = [torch.ones(1 << 16) for _ in range(800)]  # 210 MB
    del many[:-1]
    before = anonymous()
    give_back()
    assert before - anonymous() > 100 << 20
