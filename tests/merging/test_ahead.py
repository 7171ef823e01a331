"""What the live merge prepares in idle time: the rank slider's next stops."""

import pytest

from benchmarks import family as synthetic
from merging import resident, spectral
from merging.ahead import stops
from merging.checkpoint import open_checkpoint
from merging.live import LiveMerge
from merging.live_events import LookReady
from merging.plan import make_plan
from merging.polar import polar
from merging.recipe import Expert, Recipe

NAMES = synthetic.EXPERTS
EXCLUDE = {"exclude": ("*embed*", "*lm_head*")}
FOCUS = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Seven matrices so wide that one stop of the slider is another rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SIZES, "ranks", (200, 256, 1, 64, 4, 4))
        return synthetic.make_family("ranks", tmp_path_factory.mktemp("family"))


@pytest.fixture
def folds(monkeypatch):
    """One entry a polar factor: two of them make a fold."""
    made = []
    monkeypatch.setattr(spectral, "polar", lambda *args: made.append(1) or polar(*args))
    return made


def plan(folder, method="resm", weight=1.0, **parameters):
    experts = (Expert(NAMES[0], (("weight", weight),)), *map(Expert, NAMES[1:]))
    given = (
        {"rank_mode": "uniform", "outlier_mode": "none", **EXCLUDE, **parameters} if method == "resm" else parameters
    )
    return make_plan(Recipe(method, "base", experts, tuple(given.items()), folder=folder))


def live(folder, whole=1 << 40):
    experts = [open_checkpoint(name, folder) for name in NAMES]
    return LiveMerge(open_checkpoint("base", folder), experts, NAMES, None, whole, 99.0)


def moved(merge, *plans, focus=FOCUS):
    for one in plans:
        found = list(merge.move(one, focus, lambda: False))
    return next(event.look for event in found if isinstance(event, LookReady))


def ranks(before, after, *, everywhere=False):
    return [dict(one.parameters)["rank_budget"] for one in stops(before, after, everywhere=everywhere)]


def test_one_stop_on_and_one_back_within_the_range(family):
    def beside(before, after, **more):
        return ranks(plan(family, rank_budget=before), plan(family, rank_budget=after, **more))

    assert beside(0.5, 0.6) == [0.62, 0.58]
    assert beside(0.6, 0.5) == [0.48, 0.52]
    assert beside(0.9, 1.0) == [0.98]
    assert beside(0.5, 0.5, weight=0.3) == []
    assert beside(0.5, 0.5, outlier_threshold=2.0) == []
    assert ranks(None, plan(family, rank_budget=0.5)) == []
    assert ranks(plan(family, "tsv_m"), plan(family, rank_budget=0.5)) == []


def test_everywhere_are_all_stops_the_nearest_first_also_where_no_slider_moved(family):
    found = ranks(plan(family, rank_budget=0.9), plan(family, rank_budget=0.94), everywhere=True)
    assert found[:8] == [0.96, 0.92, 0.98, 0.9, 1.0, 0.88, 0.86, 0.84]
    assert len(found) == len(set(found)) == 49
    assert ranks(None, plan(family, rank_budget=0.04), everywhere=True)[:4] == [0.06, 0.02, 0.08, 0.1]
    shaped = plan(family, rank_budget=0.5, shaper="svc")  # its folds are not kept
    assert ranks(None, shaped, everywhere=True) == []
    assert list(stops(None, plan(family, "ties", density=0.5), everywhere=True)) == []


def test_other_weights_name_the_same_stops_but_not_those_of_fewer_experts(family):
    first, heavy, gone = (plan(family, rank_budget=0.5, weight=weight) for weight in (1.0, 0.3, 0.0))
    scaled = plan(family, rank_budget=0.5, **{"lambda": 2.0})
    assert list(stops(None, first, everywhere=True)) == list(stops(None, heavy, everywhere=True))
    assert list(stops(None, first, everywhere=True)) == list(stops(None, scaled, everywhere=True))
    assert not set(stops(None, first, everywhere=True)) & set(stops(None, gone, everywhere=True))


def test_a_prepared_stop_needs_no_fold_and_shows_what_it_always_did(family, folds, monkeypatch):
    monkeypatch.setattr(resident, "AHEAD", 0)  # room for eight stops
    merge = live(family)
    moved(merge, plan(family, rank_budget=0.5))
    folds.clear()
    assert len(list(merge.prepare(lambda: False))) == 7 * 7
    assert len(folds) == 7 * 7 * 2
    folds.clear()
    ahead, fresh = moved(merge, plan(family, rank_budget=0.56)), moved(live(family), plan(family, rank_budget=0.56))
    assert len(folds) == 7 * 2  # all of the fresh start
    for name, view in fresh.views.items():
        for ours, theirs in zip(ahead.views[name].spectra, view.spectra, strict=True):
            assert ours.values.tolist() == theirs.values.tolist()
    moved(merge, plan(family, rank_budget=0.44), plan(family, rank_budget=0.46, weight=0.5))
    assert len(folds) == 7 * 2


def test_what_is_ready_is_not_prepared_again_after_another_weight(family, folds, monkeypatch):
    monkeypatch.setattr(resident, "AHEAD", 0)
    merge = live(family)
    moved(merge, plan(family, rank_budget=0.5))
    assert len(list(merge.prepare(lambda: False))) == 7 * 7
    folds.clear()
    moved(merge, plan(family, rank_budget=0.5, weight=0.4))
    assert list(merge.prepare(lambda: False)) == []
    assert folds == []


def test_it_stops_after_the_matrix_that_it_is_at_and_goes_on_there(family, folds):
    merge = live(family)
    moved(merge, plan(family, rank_budget=0.5), plan(family, rank_budget=0.6))
    folds.clear()
    assert list(merge.prepare(lambda: True)) == []
    assert folds == []
    first = list(merge.prepare(lambda: len(folds) >= 4))
    assert first[0] == FOCUS
    assert len(first) == 2
    assert len(folds) == 4
    assert len(list(merge.prepare(lambda: len(folds) >= 7 * 2))) == 7
    assert len(folds) == 7 * 2  # the first stop whole, and no matrix of it twice


def test_of_a_lean_family_the_open_matrix_alone(family, folds):
    merge = live(family, whole=0)
    moved(merge, plan(family, rank_budget=0.5), plan(family, rank_budget=0.6))
    assert list(merge.prepare(lambda: False)) == [FOCUS, FOCUS]
    folds.clear()
    moved(merge, plan(family, rank_budget=0.62))
    assert len(folds) == 6 * 2
    other = "model.layers.0.self_attn.q_proj.weight"
    moved(merge, plan(family, rank_budget=0.62), focus=other)
    assert [factors.memo.count("fold") for factors in merge._held._lean.values()] == [1] * 7


def test_nothing_is_prepared_after_a_lean_familys_other_moves_or_for_ranks_across_layers(family, folds):
    merge = live(family, whole=0)
    moved(merge, plan(family, rank_budget=0.5), plan(family, weight=0.3, rank_budget=0.5))
    assert list(merge.prepare(lambda: False)) == []
    merge = live(family)
    by_layers = [plan(family, rank_mode="sparsity_budget", rank_budget=rank) for rank in (0.5, 0.6)]
    moved(merge, *by_layers)
    assert list(merge.prepare(lambda: False)) == []
