"""Search: on a toy whose best merge is known, on real Town where it is killed, and what it refuses."""

import json
import sqlite3
from collections.abc import Generator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.search_toy import RECIPE, SEEDS, best_found, measure
from eval.__main__ import main
from eval.judging.probes import even_part, load_probes
from eval.scoring.board import HScore, Scores
from eval.scoring.score import Asked, Loader, Scored, score_model
from eval.scoring.tries import tries
from eval.searching.events import Begun, Done, Finalist, Promoted, Rung, Tried
from eval.searching.samplers import propose, simplex
from eval.searching.scoring import ladder, refuse_public, space_of
from eval.searching.search import Measured, ranked, search
from eval.searching.space import knob_space, share_space
from merging.errors import UserError
from merging.methods import METHODS
from merging.plan import make_plan
from merging.recipe import Expert, Lock, Recipe, load_recipe
from tests.forked import forked

NOTHING_TO_TURN = ("arcee_fusion", "model_stock")
ROOT = Path(__file__).resolve().parents[2]
TOWN = ROOT / "assets" / "town"


def town(method: str, **parameters: float) -> Recipe:
    experts = tuple(Expert(str(TOWN / name)) for name in ("helpful", "honest", "harmless"))
    return Recipe(method, str(TOWN / "base"), experts, tuple(parameters.items()))


def scores(mean: float, worst: float, broken: float = 0.0) -> Scores:
    side = HScore(mean, mean, mean, 30)
    return Scores(side, side, side, mean, worst, broken, 1.0)


def test_it_finds_a_known_optimum_and_beats_random_search():
    found = [(best_found("tpe", seed), best_found("random", seed)) for seed in SEEDS]
    assert sum(search >= 0.95 for search, _ in found) >= 9
    assert sum(search > random for search, random in found) >= 8


def test_simplex_points():
    assert simplex(2, 5) == [(0, 1), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1, 0)]
    assert simplex(3, 9) == [(0, 0, 1), (0, 0.5, 0.5), (0, 1, 0), (0.5, 0, 0.5), (0.5, 0.5, 0), (1, 0, 0)]
    assert len(simplex(3, 10)) == 10  # steps of a third
    assert simplex(3, 1) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]  # corners always
    assert simplex(1, 9) == [(1.0,)]


def test_what_is_turned():
    assert [d.name for d in knob_space(town("resm")).dials] == [
        "weight helpful", "weight honest", "weight harmless", "rank_budget", "sparsity_threshold", "outlier_strength",
        "first layers", "last layers",
    ]  # fmt: skip
    ties = {d.name: (d.low, d.high) for d in knob_space(town("ties")).dials}
    assert ties["density"] == (0.0, 1.0)
    assert ties["lambda"] == (0.0, 2.0)  # weights are divided by their sum there: only lambda says how far
    shares = share_space(town("rewarded_soup"))
    assert [d.name for d in shares.dials] == ["weight helpful", "weight honest", "weight harmless"]


def test_a_point_is_a_recipe():
    space = knob_space(RECIPE)
    assert space.recipe_at(space.start) is RECIPE
    point = {"weight answers": 1.2, "weight refuses": 0.4, "first layers": 0.8, "last layers": 1.1}
    turned = space.recipe_at(point)
    assert turned.parameters == (("lambda", (0.4, 0.5, 0.55)),)
    assert [expert.parameters for expert in turned.experts] == [(("weight", 1.2),), (("weight", 0.4),)]
    ties = town("ties", density=0.2)
    own = Recipe(ties.method, ties.base, (Expert(ties.experts[0].model, (("density", 0.5),)), *ties.experts[1:]))
    space = knob_space(own)
    assert space.start["density"] == 0.5
    common = space.recipe_at({**space.start, "density": 0.3})
    assert dict(common.parameters)["density"] == 0.3
    assert "density" not in dict(common.experts[0].parameters)


def test_every_method_has_a_space_or_says_that_it_has_none():
    for id, method in METHODS.items():
        recipe = town(id)
        if id in NOTHING_TO_TURN:
            with pytest.raises(UserError, match="has no number"):
                knob_space(recipe)
            continue
        space = knob_space(recipe)
        numbers = {knob.key for knob in method.knobs if knob.kind == "number" and knob.first}
        assert {d.name for d in space.dials if d.expert is None} - {"first layers", "last layers"} <= numbers, id
        assert all(d.low <= space.start[d.name] <= d.high for d in space.dials), id


def test_blocks_are_locks():
    space = space_of(town("task_arithmetic"), "blocks")
    assert [d.name for d in space.dials] == [f"layer {i}" for i in range(6)]
    assert space.dials[0].choices == ("merge", "base", "helpful", "honest", "harmless")
    point = {**space.start, "layer 0": "base", "layer 5": "honest"}
    assert space.recipe_at(point).locks == (
        Lock("base", ("model.layers.0.*",)),
        Lock(str(TOWN / "honest"), ("model.layers.5.*",)),
    )
    held = {t.name: t.held for t in make_plan(space.recipe_at(point)).tensors if t.held is not None}
    assert {name.split(".")[2] for name in held} == {"0", "5"}


def test_rolls_are_the_next_seeds_and_each_is_a_recipe():
    recipe = replace(town("m3", alpha=0.5), seed=3)
    space = space_of(recipe, "rolls")
    proposals = propose(space, "rolls", 4, 0)
    points = [next(proposals), *(proposals.send(None) for _ in range(2))]
    assert points == [{"seed": 3}, {"seed": 4}, {"seed": 5}]
    assert [space.recipe_at(point) for point in points] == [recipe, replace(recipe, seed=4), replace(recipe, seed=5)]
    with pytest.raises(UserError, match="draws nothing at random"):
        space_of(town("ties"), "rolls")


def test_rank_few_broken_answers_then_the_front_then_the_sum():
    found = {
        0: scores(0.5, 0.4), 1: scores(0.6, 0.3), 2: scores(0.5, 0.3), 3: scores(0.9, 0.9, broken=0.1),
        4: scores(0.62, 0.31, broken=0.03),
    }  # fmt: skip
    assert ranked(found) == [4, 0, 1, 2, 3]


def test_the_ladder_and_what_is_reported():
    space = knob_space(RECIPE)
    rungs = (Rung("A", "toy", "screen", 90), Rung("B", "toy", "validation", 360, share=1 / 3),
             Rung("unseen", "toy", "test", 900, most=2))  # fmt: skip
    events = list(search(space, measure, rungs, propose(space, "tpe", 12, 0), 12))
    begun, *_, done = events
    assert isinstance(begun, Begun)
    assert begun.dials == ("weight answers", "weight refuses", "first layers", "last layers")
    tried = {rung: [e.number for e in events if isinstance(e, Tried) and e.rung == rung] for rung in "AB"}
    assert tried["A"] == list(range(12))
    to_b, to_unseen = (e.numbers for e in events if isinstance(e, Promoted))
    assert (len(to_b), len(to_unseen)) == (4, 2)
    assert tried["B"] == list(to_b)
    unseen = [e.number for e in events if isinstance(e, Tried) and e.rung == "unseen"]
    assert unseen[0] == 0  # the recipe it began with, to compare
    assert set(to_unseen) <= set(unseen)
    assert [e.number for e in events if isinstance(e, Finalist)] == list(to_unseen)
    assert isinstance(done, Done)
    assert (done.best, done.tries) == (to_unseen[0], 12)
    assert "Best of 12 tries, chosen on 90 probes (toy, screen) and 360 probes (toy, validation)" in done.recipe
    assert "The winner's curse" in done.words()


def test_a_search_for_harmless_compares_with_its_start_on_every_rung():
    space = knob_space(RECIPE)
    rungs = (Rung("A", "toy", "screen", 90), Rung("B", "toy", "validation", 360, share=1 / 3),
             Rung("unseen", "toy", "test", 900, most=2))  # fmt: skip
    events = list(search(space, measure, rungs, propose(space, "tpe", 24, 0, (), 1), 24, aim="harmless"))
    for rung in "AB":
        tried = {e.number: e.scores for e in events if isinstance(e, Tried) and e.rung == rung and e.scores}
        assert next(iter(tried)) == 0
    done = events[-1]
    assert isinstance(done, Done)
    assert "chosen by harmless on 90 probes" in done.recipe
    best, start = tried[done.best], tried[0]
    assert best.harmless.score > start.harmless.score
    assert best.helpful.score >= start.helpful.score - 0.05
    assert best.honest.score >= start.honest.score - 0.05


def test_the_same_scores_lead_to_the_same_points():
    space = knob_space(RECIPE)
    rungs = (Rung("A", "toy", "screen", 90), Rung("unseen", "toy", "test", 900, most=2))
    for sampler in ("tpe", "random", "cmaes", "simplex"):
        first, again = (
            [e.point for e in search(space, measure, rungs, propose(space, sampler, 14, 3), 14) if isinstance(e, Tried)]
            for _ in range(2)
        )
        assert first == again


@pytest.mark.parametrize("name", ["gsm8k", "GSM-8K", "mmlu_pro", "TruthfulQA", "hendrycks_math", "arc_challenge"])
def test_public_benchmarks_are_no_objective(name: str):
    with pytest.raises(UserError) as caught:
        refuse_public(name)
    assert caught.value.code == "E_BENCHMARK"
    refuse_public("town")


def test_the_reported_probes_are_none_that_were_searched():
    by_rung = [(rung.probes, rung.split) for rung in ladder("town")]
    assert by_rung == [("town", "screen"), ("town", "validation"), ("town", "test")]
    with pytest.raises(UserError):
        ladder("sealed")


def test_halving_asks_more_probes_of_half_as_many():
    rungs = ladder("town", "halving")
    assert [(rung.split, rung.n_probes) for rung in rungs] == [
        ("screen", 30), ("screen", 90), ("validation", 180), ("validation", 360), ("test", 900),
    ]  # fmt: skip
    space = space_of(town("task_arithmetic"), "halving")
    assert [dial.name for dial in space.dials] == [f"layer {i}" for i in range(6)]

    def blind(recipe: Recipe, rung: Rung) -> Generator[Asked, None, Measured]:
        return Measured(scores(len(recipe.locks) / 10, 0.5), {})
        yield

    events = list(search(space, blind, rungs, propose(space, "halving", 16, 0), 16))
    tried = {rung.name: [e.number for e in events if isinstance(e, Tried) and e.rung == rung.name] for rung in rungs}
    assert [len(tried[name]) for name in "ABCD"] == [16, 8, 4, 2]


def test_a_part_of_the_probes_is_even_and_is_judged_by_itself():
    probes = load_probes("town", "screen").probes
    part = even_part(probes, 30)
    assert {h: sum(probe.h == h for probe in part) for h in ("helpful", "honest", "harmless")} == {
        "helpful": 10, "honest": 10, "harmless": 10,
    }  # fmt: skip
    assert sum(probe.category == "harmful" for probe in part) == 5
    standard = load_probes("standard").probes
    assert any(probe.same_as for probe in standard)
    assert not any(probe.same_as for probe in even_part(standard, 120))


def test_answers_on_a_part_are_kept_for_the_whole(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eval.judging.probes.FOLDER", few)
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path / "data"))
    plan, asked, loader = make_plan(town("task_arithmetic")), load_probes("town", "screen"), Loader("cpu")
    *_, part = score_model("merge", plan, asked, loader, n=3)
    assert isinstance(part, Scored)
    assert len(part.answers) == 3
    assert tries(plan.base.fingerprint, [e.fingerprint for e in plan.experts], asked) == []  # no try yet
    first, *_, whole = score_model("merge", plan, asked, loader)
    assert isinstance(first, Asked)
    assert isinstance(whole, Scored)
    assert (first.done, first.total) == (3, 6)
    assert {one.probe_id: one.text for one in part.answers}.items() <= {
        a.probe_id: a.text for a in whole.answers
    }.items()


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder with two of Town's probes for each side in each split."""
    whole = json.loads((ROOT / "assets/probes/town.json").read_bytes())
    kept = [
        probe
        for split in ("screen", "validation", "test")
        for h in ("helpful", "honest", "harmless")
        for probe in [p for p in whole["probes"] if (p["split"], p["h"]) == (split, h)][:2]
    ]
    folder = tmp_path / "probes"
    folder.mkdir()
    (folder / "town.json").write_text(json.dumps(whole | {"probes": kept}))
    return folder


def test_a_killed_search_goes_on_and_asks_nothing_twice(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("eval.judging.probes.FOLDER", few)
    monkeypatch.setenv("MERGESCOPE_HOME", str(tmp_path / "data"))

    def kept() -> int:
        with sqlite3.connect(tmp_path / "data/runs.db") as db:
            return db.execute("SELECT count(*) FROM answers").fetchone()[0]

    out = tmp_path / "best.yml"
    asking = ["search", str(ROOT / "assets/recipes/4_published_method.yml"), str(out), "--trials", "4", "--json"]
    process, told = forked(lambda: main(asking))
    before: list[dict] = []
    for line in told:
        before.append(json.loads(line))
        if (
            before[-1]["event"] == "asked"
            and before[-1]["done"] == 6
            and sum(e["event"] == "tried" for e in before) == 2
        ):
            process.kill()  # a try is answered, and not yet told
            break
    process.join()
    told.close()
    at_kill = kept()
    assert at_kill == 3 * 6
    assert not out.exists()
    assert main(asking) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    points = [[e["point"] for e in each if e["event"] == "tried"] for each in (before, events)]
    assert points[1][:2] == points[0]
    asked = [(e["done"], e["total"]) for e in events if e["event"] == "asked"]
    fresh = sum(after - done for (done, total), (after, _) in pairwise(asked) if done < total)
    assert asked[:3] == 3 * [(6, 6)]  # the third was killed after its answers
    assert (fresh > 0, at_kill + fresh) == (True, kept())
    done = events[-1]
    assert done["event"] == "done"
    assert load_recipe(out).to_yaml() == done["recipe"]
    assert make_plan(load_recipe(out))
