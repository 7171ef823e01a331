"""Moves of weights and scales: all matrices at once, against a fresh start and the merged weights themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from merging import live_deltas
from merging.checkpoint import open_checkpoint
from merging.live import LiveMerge
from merging.live_events import FocusReady, FoldedReady, LookReady, Stale
from merging.plan import make_plan
from merging.recipe import Expert, Lock, Recipe
from merging.resident import Deltas
from tests.pico import make_family

NAMES = ("helpful", "honest", "harmless")
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("family")
    make_family(home)
    return home


def start(folder, **how):
    return LiveMerge(open_checkpoint("base", folder), [open_checkpoint(n, folder) for n in NAMES], NAMES, **how)


def recipe(folder, method="resm", weights=(1.0, 1.0, 1.0), locks=(), names=NAMES, **parameters):
    experts = tuple(Expert(name, (("weight", weight),)) for name, weight in zip(names, weights, strict=True))
    settings = {"exclude": ("*embed*", "*lm_head*"), **{key.rstrip("_"): value for key, value in parameters.items()}}
    return Recipe(method, "base", experts, tuple(settings.items()), dtype="float32", locks=locks, folder=folder)


def look(live, wanted):
    """Of the whole move, weights and all."""
    return next(e.look for e in list(live.move(make_plan(wanted), DOWN, lambda: False)) if isinstance(e, LookReady))


def same(ours, fresh):
    """Whether two looks tell the same: singular values and kept directions exactly, sums to float64's rounding."""
    for name, view in fresh.views.items():
        assert ours.views[name].tails == view.tails
        for mine, other in zip(ours.views[name].spectra, view.spectra, strict=True):
            assert (mine.model, mine.kept, mine.half_energy) == (other.model, other.kept, other.half_energy)
            assert mine.stable_rank == pytest.approx(other.stable_rank, rel=1e-12)
            np.testing.assert_array_equal(mine.values, other.values)
    assert ours.conflicts.keys() == fresh.conflicts.keys()
    for measure, conflict in fresh.conflicts.items():
        assert ours.conflicts[measure].rows == conflict.rows
        np.testing.assert_allclose(ours.conflicts[measure].values, conflict.values, rtol=1e-6, err_msg=measure)
    return True


SUPPRESSED = {"outlier_mode": "layer_suppress", "outlier_threshold": 1.0}
TURNED = {"names": ("harmless", "helpful"), "weights": (1.0, 1.0)}
MOVES = [
    pytest.param("resm", {}, {"weights": (0.3, -1.0, 1.7)}, id="weights"),
    pytest.param("resm", {}, {"lambda_": 0.0}, id="nothing is left"),
    pytest.param("tsv_m", {}, {"weights": (0.3, 2.0, 1.0), "lambda_": 1.3}, id="another method"),
    pytest.param("resm", {"weights": (1.0, 0.0, 1.0)}, {"weights": (0.5, 0.0, 2.0)}, id="two of three experts"),
    pytest.param("resm", SUPPRESSED, SUPPRESSED | {"outlier_strength": 0.4}, id="whole layers suppressed less"),
    pytest.param("resm", SUPPRESSED | TURNED, SUPPRESSED | TURNED | {"weights": (2.0, 0.5)}, id="another order"),
]


@pytest.mark.parametrize("whole", [0, 1 << 30], ids=["large", "small"])
@pytest.mark.parametrize(("method", "before", "after"), MOVES)
def test_all_matrices_follow_without_being_merged_again(folder, monkeypatch, method, before, after, whole):
    """And of a large family without a look at its entries."""
    live, fresh = start(folder, whole=whole), start(folder, whole=whole)
    look(live, recipe(folder, method, **before))
    plan = make_plan(recipe(folder, method, **after))
    expected, state = look(fresh, plan.recipe), fresh.state(plan)
    with monkeypatch.context() as context:
        context.setattr(live_deltas, "merged_delta", None)  # whoever calls it fails
        context.setattr(live.held, "read", None)
        moved = live.move(plan, DOWN, lambda: False)
        assert same(next(event.look for event in moved if isinstance(event, LookReady)), expected)
    assert FoldedReady in map(type, moved)
    folded = live.folded(plan)
    assert folded
    assert folded.folds.keys() == {matrix.name for matrix in live.family.matrices}
    assert all(torch.equal(tensor, state[name]) for name, tensor in live.state(plan).items())


def test_of_a_large_family_a_new_rule_reads_one_matrix_at_a_time(folder, monkeypatch):
    live = start(folder, whole=0)
    look(live, recipe(folder, outlier_mode="none"))
    read, at_once = Deltas.tensor, []

    def counted(self):
        found = read(self)
        at_once.append(sum(factors.deltas._tensor is not None for factors in live.held._lean.values()))
        return found

    monkeypatch.setattr(Deltas, "tensor", counted)
    look(live, recipe(folder, **SUPPRESSED))
    assert set(at_once) == {1}


def test_of_the_experts_that_are_left_no_deltas_are_kept_twice(folder):
    live = start(folder)
    look(live, recipe(folder, weights=(1.0, 0.0, 1.0)))
    known = live._diagonal and live._diagonal._known
    assert known
    for each in known:
        held = live.held.read(each.tensor.name)[1].deltas
        assert len(each.factors.deltas) == 2
        assert each.factors.deltas[1].untyped_storage().data_ptr() == held.untyped_storage().data_ptr()


def test_cosines_and_spectra_are_those_of_the_merged_weights(folder):
    live = start(folder)
    plan = make_plan(recipe(folder, weights=(-0.5, 2.0, 0.3)))
    look(live, recipe(folder))
    found = look(live, plan.recipe)
    base, *experts = (open_checkpoint(name, folder).read(DOWN).double() for name in ("base", *NAMES))
    delta = live.state(plan)[DOWN].double() - base
    cosines = [float((delta * (e - base)).sum() / delta.norm() / (e - base).norm()) for e in experts]
    kind, layer = found.family.kinds.index("down"), 1
    np.testing.assert_allclose(found.conflicts["kept"].values[:, kind, layer], cosines, rtol=1e-4)
    values = torch.linalg.svdvals(delta)
    merge = found.views[DOWN].spectra[-1]
    np.testing.assert_allclose(merge.values, values[: len(merge.values)], atol=1e-5)
    assert merge.stable_rank == pytest.approx(float(values.square().sum() / values[0] ** 2), rel=1e-4)


def test_the_open_matrix_still_comes_first(folder):
    live = start(folder)
    look(live, recipe(folder))
    events = list(live.move(make_plan(recipe(folder, weights=(0.5, 1, 1))), DOWN, lambda: False))
    at = [type(event) for event in events]
    assert at.index(FocusReady) < at.index(LookReady)
    assert events[at.index(FocusReady)].view is events[at.index(LookReady)].look.views[DOWN]


def test_a_move_that_a_later_one_overtook_ends_without_pictures(folder):
    live = start(folder)
    look(live, recipe(folder))
    events = live.move(make_plan(recipe(folder, weights=(0.5, 1, 1))), None, lambda: True)
    assert list(map(type, events)) == [Stale]


def test_matrices_that_a_lock_let_go_join_the_others(folder, monkeypatch):
    live = start(folder)
    look(live, recipe(folder, locks=(Lock("base", ("*.layers.1.*",)),)))
    look(live, recipe(folder))
    monkeypatch.setattr(live_deltas, "merged_delta", None)  # whoever calls it fails
    assert next(
        e for e in live.move(make_plan(recipe(folder, lambda_=0.5)), DOWN, lambda: False) if type(e) is LookReady
    )


@pytest.mark.parametrize(
    "moved",
    [
        pytest.param({"locks": (Lock("base", ("*.layers.1.*",)),)}, id="a lock"),
        pytest.param({"outlier_threshold": 1.5}, id="a threshold that the tails show"),
        pytest.param({"outlier_mode": "layer_suppress"}, id="whole layers, whose entries must be looked at"),
        pytest.param({"shaper": "mean"}, id="a shaper"),
    ],
)
def test_what_it_cannot_tell_of_is_merged_again(folder, moved):
    live = start(folder)
    look(live, recipe(folder, outlier_mode="none"))
    first = recipe(folder, **({"outlier_mode": "none"} | moved))
    assert same(look(live, first), look(start(folder), first))
    beside = replace(first, experts=(Expert("helpful", (("weight", 0.4),)), *first.experts[1:]))
    assert same(look(live, beside), look(start(folder), beside))


def test_matrices_that_lost_directions_are_merged_beside_the_others(folder):
    """A polar tolerance that drops directions of some matrices alone: those have no closed form of this kind."""
    for tolerance in (0.02, 0.05, 0.1):
        live, before = start(folder), recipe(folder, rank_budget=1.0, polar_tolerance=tolerance)
        dropped = {name for name, view in look(live, before).views.items() if view.dropped}
        after = recipe(folder, weights=(0.3, 1.0, 2.0), rank_budget=1.0, polar_tolerance=tolerance)
        assert same(look(live, after), look(start(folder), after))
        if dropped and len(dropped) < len(live.family.matrices):
            return
    pytest.fail("no tolerance drops directions of some matrices alone")
