"""Sketches: how near they are to the exact factors, and that nothing but first pictures is made of them."""

import pytest
import torch

from benchmarks import family as synthetic
from merging import engine, live_sketch, spectral
from merging.checkpoint import open_checkpoint
from merging.decompose import SVD
from merging.live import LiveMerge
from merging.live_events import FocusReady, FoldedReady, LookReady, SampleReady, StateReady
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from merging.sketch import sketch, with_tail

NAMES = synthetic.EXPERTS
Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Matrices large enough to be sketched, one layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SIZES, "one", (320, 512, 1, 64, 4, 4))
        return synthetic.make_family("one", tmp_path_factory.mktemp("family"))


def delta(folder, name) -> torch.Tensor:
    return open_checkpoint(NAMES[0], folder).read(name).float() - open_checkpoint("base", folder).read(name).float()


def excess(a: torch.Tensor, part: SVD) -> float:
    """How much longer what is left of `a` is than at best, in float64."""
    left = a.double() - (part.u.double() * part.s.double()) @ part.v.double().T
    return float(left.norm() / torch.linalg.svdvals(a.double())[len(part.s) :].norm()) - 1


class TestBounds:
    @pytest.mark.parametrize("kind", ["self_attn.q_proj", "mlp.up_proj", "mlp.down_proj"])
    @pytest.mark.parametrize("share", [0.05, 0.1, 1 / 3])
    def test_leaves_at_most_3_percent_more_than_the_best(self, folder, kind, share):
        a = delta(folder, f"model.layers.0.{kind}.weight")
        k = int(share * min(a.shape))
        found = sketch(a, k)
        assert (found.u.shape, found.s.shape, found.v.shape) == ((len(a), k), (k,), (a.shape[1], k))
        assert excess(a, found) < 0.03
        assert excess(a, sketch(a, k, power=2)) < 0.6 * excess(a, found)
        low = 1 - found.s / torch.linalg.svdvals(a.double())[:k]
        assert low.min() > -1e-5
        assert low.mean() < 0.08
        for columns in (found.u, found.v):
            torch.testing.assert_close(columns.T @ columns, torch.eye(k), atol=1e-4, rtol=0)
        assert torch.equal(found.u, sketch(a, k).u)

    def test_a_matrix_of_lower_rank_is_found_whole(self):
        left, right = (torch.randn(n, 20, generator=torch.Generator().manual_seed(n)) for n in (400, 320))
        a = left @ right.T
        found = sketch(a, 40)
        assert ((found.u * found.s) @ found.v.T - a).norm() < 1e-5 * a.norm()

    @pytest.mark.parametrize("strong", [100.0, 1000.0])
    def test_where_few_directions_are_much_stronger_products_still_do(self, strong, monkeypatch):
        monkeypatch.setattr(torch.linalg, "qr", lambda *_: pytest.fail("Householder's"))
        random = torch.Generator().manual_seed(3)
        left, right, rest = (torch.randn(*shape, generator=random) for shape in ((512, 20), (20, 400), (512, 400)))
        a = left @ right + 100 / strong * rest
        assert excess(a, sketch(a, 100)) < 0.03

    def test_nothing_is_found_in_nothing(self):
        assert sketch(torch.zeros(400, 320), 10).s.tolist() == [0.0] * 10

    def test_the_estimated_tail_keeps_the_norm_and_lies_near_the_exact_one(self, folder):
        a = delta(folder, Q)
        exact = torch.linalg.svdvals(a)
        found = with_tail(sketch(a, 32).s, float(a.norm()), 320)
        assert found.shape == (320,)
        assert float(found.norm()) == pytest.approx(float(a.norm()), rel=1e-3)
        assert (found[1:] <= found[:-1]).all()
        assert (found / exact - 1)[:240].abs().max() < 0.25

    @pytest.mark.parametrize(("s", "norm"), [([], 1.0), ([2.0, 1.0], 5**0.5), ([0.0, 0.0], 0.0)])
    def test_a_tail_of_nothing(self, s, norm):
        found = with_tail(torch.tensor(s), norm, 5)
        assert found[len(s) :].max() < 1e-3
        assert found[: len(s)].tolist() == s


def plan_of(folder, method="resm", **parameters):
    settings = {"exclude": ("*embed*", "*lm_head*"), **parameters}
    return make_plan(Recipe(method, "base", tuple(map(Expert, NAMES)), tuple(settings.items()), folder=folder))


def live_of(folder, cache=None, whole=0):
    base, *experts = (open_checkpoint(name, folder) for name in ("base", *NAMES))
    return LiveMerge(base, experts, NAMES, cache, whole)


def events_of(live, plan, focus=Q):
    return list(live.move(plan, focus, lambda: False))[1:]


class TestLive:
    KINDS = (SampleReady, FocusReady, FocusReady, SampleReady, SampleReady, LookReady, FoldedReady, StateReady)

    def test_sketches_are_shown_first_marked_and_replaced(self, folder, tmp_path):
        sample, rough, exact, maps, sketched, look, *_ = found = events_of(live_of(folder, tmp_path), plan_of(folder))
        assert tuple(map(type, found)) == self.KINDS
        assert rough.view.sketched
        assert not exact.view.sketched
        assert [one.look.tier for one in (sample, maps, sketched, look)] == ["sample", "maps", "sketch", "exact"]
        assert {name for name, view in sketched.look.views.items() if not view.sketched} == {Q}
        assert not any(view.sketched for view in look.look.views.values())
        for name, view in look.look.views.items():
            rough = sketched.look.views[name]
            assert [s.kept for s in rough.spectra] == [s.kept for s in view.spectra]
            assert rough.tails == view.tails
            for mine, theirs in zip(rough.spectra, view.spectra, strict=True):
                assert len(mine.values) == len(theirs.values)
                assert mine.stable_rank == pytest.approx(theirs.stable_rank, rel=0.05)
        for measure in ("sign", "cosine"):
            assert (sketched.look.conflicts[measure].values == look.look.conflicts[measure].values).all()
        for measure in ("shared", "kept"):
            apart = sketched.look.conflicts[measure].values - look.look.conflicts[measure].values
            assert abs(apart).max() < 0.1

    def test_the_exact_numbers_are_those_of_a_merge_without_sketches(self, folder, tmp_path, monkeypatch):
        plan = plan_of(folder)
        after, merged = live_of(folder, tmp_path / "a"), live_of(folder, tmp_path / "b")
        mine = events_of(after, plan)[-3].look
        monkeypatch.setattr(live_sketch.Sketches, "wanted", lambda *_: frozenset())
        theirs = events_of(merged, plan)[-3].look
        for name, view in theirs.views.items():
            for one, other in zip(mine.views[name].spectra, view.spectra, strict=True):
                assert one.values.tolist() == other.values.tolist()
        for name, fold in merged.folded(plan).folds.items():
            assert torch.equal(after.folded(plan).folds[name].u, fold.u)
        assert all(torch.equal(tensor, after.state(plan)[name]) for name, tensor in merged.state(plan).items())

    def test_kept_factors_are_exact_and_the_sketches_files_go(self, folder, tmp_path):
        live = live_of(folder, tmp_path)
        moving = live.move(plan_of(folder), Q, lambda: False)
        while not (isinstance(event := next(moving), SampleReady) and event.look.tier == "sketch"):
            pass
        kept, rough = (set((tmp_path / part).glob("*.safetensors")) for part in ("factors", "sketches"))
        assert len(kept) == 3  # of the open matrix
        assert len(rough) == 7 * 3
        assert not {path.name for path in kept} & {path.name for path in rough}
        list(moving)
        assert not list((tmp_path / "sketches").iterdir())
        assert len(list((tmp_path / "factors").iterdir())) == 7 * 3
        again = events_of(live_of(folder, tmp_path), plan_of(folder))
        assert tuple(map(type, again)) == self.KINDS[2:3] + self.KINDS[5:]

    def test_of_a_small_family_and_of_other_methods_there_are_none(self, folder):
        assert SampleReady not in map(type, events_of(live_of(folder, whole=1 << 40), plan_of(folder)))
        found = events_of(live_of(folder), plan_of(folder, "ties"))
        assert not any(event.view.sketched for event in found if isinstance(event, FocusReady))

    def test_a_clamped_merge_is_sketched_after_its_clamp(self, folder):
        found = events_of(live_of(folder), plan_of(folder, outlier_mode="huber", outlier_threshold=2.0))
        rough, exact = (event.view.spectra[-1] for event in found if isinstance(event, FocusReady))
        assert exact.values[0] == pytest.approx(rough.values[0], rel=0.02)

    def test_a_cancelled_move_ends_among_the_sketches(self, folder):
        live, seen = live_of(folder), []
        for event in live.move(plan_of(folder), Q, lambda: len(seen) == 4):
            seen.append(type(event))
        assert seen[1:] == [SampleReady, FocusReady, FocusReady]

    def test_what_a_cancelled_first_look_left_goes_with_the_next_whole_one(self, folder, tmp_path):
        live, seen = live_of(folder, tmp_path), []
        for event in live.move(plan_of(folder), Q, lambda: len(seen) == 6):
            seen.append(type(event))
        assert list((tmp_path / "sketches").iterdir())
        assert LookReady in map(type, events_of(live, plan_of(folder, "ties")))
        assert not list((tmp_path / "sketches").iterdir())


@pytest.mark.parametrize("method", ["resm", "tsv_m"])
def test_an_export_and_a_live_state_make_none(folder, monkeypatch, method):
    """Scores are of exports and states; chat's folds come from the exact events above."""

    def refuse(*_):
        raise AssertionError("a sketch is for first pictures")

    monkeypatch.setattr(spectral, "sketch", refuse)
    plan = plan_of(folder, method)
    assert len(dict(engine.merged_tensors(plan))) == len(live_of(folder).state(plan)) == len(plan.tensors)
    assert set(live_of(folder).triplets(8)) > {Q, DOWN}
