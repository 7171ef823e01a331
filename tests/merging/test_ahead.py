"""What the live merge prepares in idle time: the rank slider's next stops."""

import pytest

from benchmarks import family as synthetic
from merging import spectral
from merging.ahead import neighbours
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


def test_one_stop_on_and_one_back_within_the_range(family):
    def stops(before, after, **more):
        first, second = plan(family, rank_budget=before), plan(family, rank_budget=after, **more)
        return [dict(one.parameters)["rank_budget"] for one in neighbours(first, second)]

    assert stops(0.5, 0.6) == [0.62, 0.58]
    assert stops(0.6, 0.5) == [0.48, 0.52]
    assert stops(0.9, 1.0) == [0.98]
    assert stops(0.5, 0.5, weight=0.3) == []
    assert stops(0.5, 0.5, outlier_threshold=2.0) == []
    assert neighbours(None, plan(family, rank_budget=0.5)) == ()
    assert neighbours(plan(family, "tsv_m"), plan(family, rank_budget=0.5)) == ()
    assert neighbours(plan(family, "ties", density=0.4), plan(family, "ties", density=0.5)) == ()


def test_the_next_stop_needs_no_fold_and_shows_what_it_always_did(family, folds):
    merge = live(family)
    moved(merge, plan(family, rank_budget=0.5), plan(family, rank_budget=0.6))
    folds.clear()
    assert len(list(merge.prepare(lambda: False))) == 7
    assert len(folds) == 7 * 2 * 2
    folds.clear()
    ahead, fresh = moved(merge, plan(family, rank_budget=0.62)), moved(live(family), plan(family, rank_budget=0.62))
    assert len(folds) == 7 * 2  # all of the fresh start
    for name, view in fresh.views.items():
        for ours, theirs in zip(ahead.views[name].spectra, view.spectra, strict=True):
            assert ours.values.tolist() == theirs.values.tolist()
    moved(merge, plan(family, rank_budget=0.58), plan(family, rank_budget=0.6, weight=0.5))
    assert len(folds) == 7 * 2


def test_it_stops_after_the_matrix_that_it_is_at(family, folds):
    merge = live(family)
    moved(merge, plan(family, rank_budget=0.5), plan(family, rank_budget=0.6))
    folds.clear()
    assert list(merge.prepare(lambda: True)) == []
    assert folds == []
    assert list(merge.prepare(lambda: len(folds) >= 4)) == [FOCUS]  # the open matrix at both stops
    assert len(folds) == 4


def test_of_a_lean_family_the_open_matrix_alone(family, folds):
    merge = live(family, whole=0)
    moved(merge, plan(family, rank_budget=0.5), plan(family, rank_budget=0.6))
    assert list(merge.prepare(lambda: False)) == [FOCUS]
    folds.clear()
    moved(merge, plan(family, rank_budget=0.62))
    assert len(folds) == 6 * 2
    other = "model.layers.0.self_attn.q_proj.weight"
    moved(merge, plan(family, rank_budget=0.62), focus=other)
    held = [[key for key in factors.memo if str(key).startswith("('fold'")] for factors in merge._held._lean.values()]
    assert [len(keys) for keys in held] == [1] * 7


def test_nothing_is_prepared_after_a_move_of_another_kind(family, folds):
    merge = live(family)
    moved(merge, plan(family, rank_budget=0.5), plan(family, weight=0.3, rank_budget=0.5))
    assert list(merge.prepare(lambda: False)) == []
    by_layers = [plan(family, rank_mode="sparsity_budget", rank_budget=rank) for rank in (0.5, 0.6)]
    moved(merge, *by_layers)
    assert list(merge.prepare(lambda: False)) == []
