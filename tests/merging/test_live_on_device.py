"""The live merge on a device: pretended on the CPU, where a tensor that is left behind is an error."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import family as synthetic
from merging.checkpoint import open_checkpoint
from merging.folded import Folded
from merging.live import LiveMerge
from merging.live_events import LookReady
from merging.look import Look
from merging.plan import Plan, make_plan
from merging.recipe import Expert, Recipe
from tests.pretend_device import DEVICE, PretendingPool, pretend_device

TOWN = Path(__file__).resolve().parents[2] / "assets" / "town"
SETTINGS = {
    "tsv_m": (("rank_budget", 0.5), ("exclude", ("*embed*", "*lm_head*"))),
    "resm": (("rank_budget", 0.5), ("exclude", ("*embed*", "*lm_head*"))),
    "ties": (("density", 0.4),),
    "linear": (),
}
CLOSE = 1e-4  # of the numbers on the CPU: another eigensolver turns directions inside a flat bulk of noise


def planned(folder: Path, names: tuple[str, ...], method: str) -> Plan:
    return make_plan(
        Recipe(method, "base", tuple(Expert(name) for name in names), SETTINGS[method], folder=folder,
               out_dtype="float32")
    )  # fmt: skip


def moved(live: LiveMerge, plan: Plan) -> tuple[Look, dict[str, torch.Tensor], Folded | None]:
    """The pictures, the weights and the folds that one move leaves."""
    looks = [event.look for event in live.move(plan, None, lambda: False) if isinstance(event, LookReady)]
    return looks[-1], dict(live.state(plan)), live.folded(plan)


def on_both(root: Path, names: tuple[str, ...], method: str, monkeypatch: pytest.MonkeyPatch, **how):
    plan, models = planned(root, names, method), [open_checkpoint(name, root) for name in ("base", *names)]
    here = moved(LiveMerge(models[0], models[1:], names, **how), plan)
    monkeypatch.setattr("merging.live.ThreadPoolExecutor", PretendingPool)
    with pretend_device():
        return here, moved(LiveMerge(models[0], models[1:], names, device=DEVICE, **how), plan)


def same(here, there, most: float = CLOSE) -> None:
    look, state, _ = here
    other, found, _ = there
    assert look.conflicts.keys() == other.conflicts.keys()
    for measure, expected in look.conflicts.items():
        np.testing.assert_allclose(other.conflicts[measure].values, expected.values, rtol=10 * most, atol=most)
    for name, view in look.views.items():
        for mine, theirs in zip(other.views[name].spectra, view.spectra, strict=True):
            np.testing.assert_allclose(mine.values, theirs.values, rtol=0, atol=most * max(theirs.values))
            assert mine.kept == theirs.kept
        assert other.views[name].tails == view.tails
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].device.type == "cpu"
        assert float((found[name] - tensor).norm()) <= most * float(tensor.norm()), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Matrices large enough for every fast route, one layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SIZES, "one", (320, 512, 1, 64, 4, 4))
        return synthetic.make_family("one", tmp_path_factory.mktemp("family"))


@pytest.mark.parametrize("method", SETTINGS)
def test_a_live_merge_is_what_it_is_on_the_cpu(folder, method, monkeypatch):
    here, there = on_both(folder, synthetic.EXPERTS[:3], method, monkeypatch)
    same(here, there)
    folded = there[2]
    assert (folded is None) == (method in ("ties", "linear"))
    if folded:
        assert {part.device.type for fold in folded.folds.values() for part in (fold.u, fold.x, fold.v)} == {DEVICE}


def test_town_is_merged_and_pictured_as_on_the_cpu(monkeypatch):
    same(*on_both(TOWN, ("helpful", "honest", "harmless"), "tsv_m", monkeypatch))


@pytest.mark.parametrize("method", ["tsv_m", "ties"])
def test_a_family_too_large_to_be_held_whole_leaves_its_triplets_in_host_memory(folder, method, tmp_path, monkeypatch):
    here, there = on_both(folder, synthetic.EXPERTS[:2], method, monkeypatch, whole=0, folder=tmp_path)
    same(here, there)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", SETTINGS)
def test_a_gpu_gives_what_the_cpu_gives(folder, method):
    names = synthetic.EXPERTS[:3]
    plan, models = planned(folder, names, method), [open_checkpoint(name, folder) for name in ("base", *names)]
    here, there = (moved(LiveMerge(models[0], models[1:], names, device=where), plan) for where in ("cpu", "cuda"))
    same(here, there, 2e-3)
