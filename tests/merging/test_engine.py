"""The engine on real files: what a plan decides, weight 0, excluded tensors, threads and the live merge."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from merging import blocks, engine, pieces, writer
from merging.checkpoint import open_checkpoint
from merging.engine import merge, merged_pieces, merged_tensors
from merging.layers import layer_of
from merging.live import LiveMerge
from merging.live_events import FocusReady, FoldedReady, LookReady, Stale, StateReady
from merging.pieces import merged_tensor
from merging.plan import check, make_plan
from merging.recipe import Expert, Recipe, parse_recipe
from merging.values import Case
from tests.pico import make_family

NAMES = ("helpful", "honest", "harmless")
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    make_family(folder, tied=True)
    return folder


def recipe(folder, method="resm", weights=(1.0, 1.0, 1.0), names=NAMES, dtype=None, **parameters):
    parameters = {key.rstrip("_"): value for key, value in parameters.items()}
    experts = tuple(Expert(name, (("weight", weight),)) for name, weight in zip(names, weights, strict=True))
    return Recipe(method, "base", experts, tuple(parameters.items()), dtype=dtype, folder=folder)


def merged(folder, *args, **kwargs):
    return dict(merged_tensors(make_plan(recipe(folder, *args, **kwargs))))


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "tsv_m", "resm", "dare_linear"])
def test_an_expert_with_weight_0_is_not_there(family, method):
    assert same(
        merged(family, method, (1.0, 0.0, 0.5), dtype="float32"),
        merged(family, method, (1.0, 0.5), NAMES[::2], dtype="float32"),
    )


def test_all_weights_0_is_the_base(family):
    base = open_checkpoint("base", family)
    assert all(torch.equal(base.read(name), tensor) for name, tensor in merged(family, weights=(0, 0, 0)).items())


@pytest.mark.parametrize(
    ("method", "settings"), [("task_arithmetic", {}), ("ties", {}), ("tsv_m", {}), ("dare_ties", {}), ("linear", {})]
)
def test_one_expert_with_weight_1_is_that_expert(family, method, settings):
    expert = open_checkpoint("honest", family)
    for name, tensor in merged(family, method, (1.0,), ("honest",), dtype="float32", **settings).items():
        torch.testing.assert_close(tensor, expert.read(name).float(), atol=2e-6, rtol=0)


def test_excluded_tensors_and_vectors_take_the_mean(family):
    plan = make_plan(recipe(family, weights=(1.0, 0.5, 0.0), dtype="float32", exclude=("*embed*",), lambda_=2.0))
    found = dict(merged_tensors(plan))
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        base, helpful, honest = (open_checkpoint(m, family).read(name).float() for m in ("base", "helpful", "honest"))
        mean = (helpful - base + 0.5 * (honest - base)) / 2
        torch.testing.assert_close(found[name], base + 2 * mean, atol=1e-6, rtol=0)


def test_the_densest_layer_is_sought_among_the_matrices_that_ask_for_it(family):
    part = {"rank_mode": (Case("mlp", "sparsity_budget"), Case(None, "uniform")), "sparsity_threshold": 0.9}
    found = merged(family, dtype="float32", **part)[DOWN]
    alone = merged(family, dtype="float32", rank_mode="sparsity", sparsity_threshold=0.9)[DOWN]
    assert not torch.equal(found, alone)  # which it was when the first other matrix ended the search


def test_the_dtype_is_the_bases_unless_the_recipe_says_otherwise(family):
    assert {t.dtype for t in merged(family).values()} == {torch.bfloat16}
    assert {t.dtype for t in merged(family, dtype="float16").values()} == {torch.float16}


def test_a_large_tensor_is_written_in_pieces_with_the_same_bytes(family, tmp_path, monkeypatch):
    plan = make_plan(recipe(family, "model_stock"))
    before = dict(merged_tensors(plan))
    list(merge(plan, tmp_path / "whole"))
    monkeypatch.setattr(blocks, "BLOCK", 256)
    monkeypatch.setattr(pieces, "PIECE", 512)
    found = [(name, len(piece)) for name, piece in merged_pieces(plan)]
    assert [n for name, n in found if name == DOWN] == [512, 512, 512, 512]
    assert same(before, dict(merged_tensors(plan)))
    list(merge(plan, tmp_path / "pieces"))
    data = [(tmp_path / where / "model.safetensors").read_bytes() for where in ("whole", "pieces")]
    assert data[0] == data[1]
    journal = json.loads((tmp_path / "pieces" / "mergescope.json").read_text())
    assert journal["shards"]["model.safetensors"]["sha256"] == hashlib.sha256(data[1]).hexdigest()


def test_a_tensor_of_one_piece_is_read_once_for_all_passes(family, monkeypatch):
    plan, read, counts = make_plan(recipe(family, "ties", density=0.4)), os.preadv, []
    monkeypatch.setattr(os, "preadv", lambda *place: counts.append(read(*place)) or counts[-1])
    merged = merged_tensor(plan, plan.tensor(DOWN), None)
    models = 1 + len(plan.experts)
    assert sum(counts) == models * merged.nbytes


@pytest.mark.parametrize("method", ["resm", "ties", "dare_ties", "della"])
def test_the_same_bytes_from_any_number_of_workers_in_any_shards(family, tmp_path, monkeypatch, method):
    monkeypatch.setattr(blocks, "BLOCK", 256)
    monkeypatch.setattr(pieces, "PIECE", 512)
    plan = make_plan(recipe(family, method, **({} if method == "resm" else {"density": 0.4})))
    found = []
    for workers, limit, folder in ((1, 1 << 30, "one"), (5, 20_000, "many")):
        monkeypatch.setattr(engine, "cores", lambda workers=workers: workers)
        list(writer.write(plan, tmp_path / folder, lambda skip: merged_pieces(plan, skip=skip), max_shard_bytes=limit))
        model = open_checkpoint(folder, tmp_path)
        found.append({name: model.read(name) for name in model.tensors})
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert found[0].keys() == found[1].keys()
    assert same(*found)


def test_what_is_computed_to_be_read_is_computed_once(family, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 512)
    monkeypatch.setattr(blocks, "BLOCK", 256)
    text = """
name: first
merge_method: linear
models: [{model: helpful}, {model: honest}]
---
merge_method: slerp
base_model: base
models: [{model: first}]
"""
    plan = make_plan(parse_recipe(text, family))
    assert len(pieces.pieces(plan, plan.tensor(DOWN), None)) == 1


def test_the_threads_of_the_process_stay_as_they_were(family):
    before = torch.get_num_threads()
    merged(family)
    assert torch.get_num_threads() == before


def test_layers_are_found_by_name():
    assert layer_of("model.layers.11.mlp.up_proj.weight") == 11
    assert layer_of("transformer.h.3.attn.c_attn.weight") == 3
    assert layer_of("gpt_neox.layers.0.attention.dense.weight") == 0
    assert layer_of("model.embed_tokens.weight") is None


class TestCheck:
    def test_it_lists_every_problem_at_once(self, family):
        wrong = Recipe(
            "ties", "base", (Expert("nowhere", (("weight", float("nan")),)), Expert("honest")),
            (("densty", 0.5), ("density", 1.5), ("normalize", None)), folder=family,
        )  # fmt: skip
        found = check(wrong)
        assert found.plan is None
        text = "\n".join(map(str, found.problems))
        for part in ("nowhere", "weight: nan", "Did you mean `density`?", "1.5 lies outside 0 to 1", "normalize"):
            assert part in text
        assert len(found.problems) == 5

    def test_a_setting_of_another_method_is_a_notice(self, family):
        found = check(recipe(family, "ties", density=0.5, rank_budget=0.3, int8_mask=True))
        assert found.plan is not None
        assert [notice for notice in found.notices if "rank_budget" in notice]
        assert not [notice for notice in found.notices if "int8_mask" in notice]

    def test_the_base_among_the_models_is_no_expert_however_it_is_spelled(self, family):
        for spelling in ("base", "./base", "base/"):
            models = (Expert(spelling), Expert("honest"), Expert("helpful"))
            plan = make_plan(Recipe("tsv_m", "base", models, folder=family))
            assert [expert.folder.name for expert in plan.experts] == ["honest", "helpful"]

    def test_weights_that_sum_to_0_cannot_be_normalised(self, family):
        assert "sum to 0" in str(check(recipe(family, "linear", (1.0, -1.0, 0.0))).problems[0])
        assert "sum to 0" in str(check(recipe(family, "linear", (0.3000000001, -0.3, 0.0))).problems[0])
        assert check(recipe(family, "linear", (1.0, -1.0, 0.0), normalize=False)).plan

    def test_a_list_of_words_is_no_gradient(self, family):
        (problem,) = check(recipe(family, rank_mode=("uniform", "sparsity"))).problems
        assert "rank_mode: a list of 2 is none of sparsity, uniform" in str(problem)

    def test_true_and_null_are_not_numbers(self, family):
        for value in (True, None, "much", 10**400):
            assert len(check(recipe(family, "resm", rank_budget=value)).problems) == 1

    def test_the_digest_follows_what_decides_the_bytes(self, family):
        digest = make_plan(recipe(family, rank_budget=0.5)).digest
        assert make_plan(recipe(family, rank_budget=0.50)).digest == digest
        assert make_plan(recipe(family, rank_budget=0.6)).digest != digest
        assert make_plan(recipe(family, names=("helpful", "honest", "honest"), rank_budget=0.5)).digest != digest


class TestLive:
    def live(self, family):
        return LiveMerge(open_checkpoint("base", family), [open_checkpoint(n, family) for n in NAMES], NAMES)

    @pytest.mark.parametrize("method", ["resm", "tsv_m", "ties", "linear", "dare_ties", "task_arithmetic"])
    def test_its_weights_are_those_of_an_export(self, family, method):
        live, plan = self.live(family), make_plan(recipe(family, method, (1.0, 0.5, 0.0)))
        events = list(live.move(plan, DOWN, lambda: False))
        folds = [FoldedReady] if method in ("resm", "tsv_m") else []
        assert [type(event) for event in events] == [Stale, FocusReady, LookReady, *folds, StateReady]
        assert same(live.state(plan), dict(merged_tensors(plan)))

    @pytest.mark.parametrize("method", ["resm", "ties"])
    @pytest.mark.parametrize("names", [NAMES[::-1], ("honest", "honest", "helpful")])
    def test_experts_may_stand_in_another_order_than_the_familys(self, family, method, names):
        live, plan = self.live(family), make_plan(recipe(family, method, (2.0, 0.3, 1.0), names))
        assert same(live.state(plan), dict(merged_tensors(plan)))

    def test_slerp_between_base_and_one_expert(self, family):
        live = self.live(family)
        plan = make_plan(Recipe("slerp", "base", (Expert("honest"),), (("t", 0.3),), folder=family))
        list(live.move(plan, None, lambda: False))
        assert same(live.state(plan), dict(merged_tensors(plan)))

    def test_a_move_says_what_it_made_stale(self, family):
        live = self.live(family)
        moves = [
            (recipe(family), "tensors"),
            (recipe(family), "nothing"),
            (recipe(family, weights=(0.5, 1, 1)), "diagonal"),
            (recipe(family, weights=(0.5, 1, 1), lambda_=1.3), "diagonal"),
            (recipe(family, weights=(0.0, 1, 1), lambda_=1.3), "fold"),
            (recipe(family, weights=(0.0, 1, 1), lambda_=1.3, rank_budget=0.5), "fold"),
            (recipe(family, weights=(0.0, 1, 1), lambda_=1.3, rank_budget=0.5, outlier_threshold=2.0), "factors"),
            (recipe(family, outlier_mode="layer_suppress"), "factors"),
            (recipe(family, outlier_mode="layer_suppress", outlier_strength=0.4), "diagonal"),
            (recipe(family, outlier_mode="layer_emphasise", outlier_threshold=2.0, outlier_scope="row"), "diagonal"),
            (recipe(family, outlier_mode="none"), "diagonal"),
            (recipe(family, outlier_mode="drop"), "factors"),
            (recipe(family, "ties"), "tensors"),
        ]
        for wanted, what in moves:
            first, *_ = live.move(make_plan(wanted), DOWN, lambda: False)
            assert first == Stale(what)

    @pytest.mark.parametrize(
        "moved", [{"outlier_strength": 0.4}, {"outlier_threshold": 2.0}, {"outlier_mode": "layer_emphasise"}]
    )
    def test_layers_weighed_anew_are_not_folded_or_factored_anew(self, family, moved, monkeypatch):
        live = self.live(family)
        still = {"outlier_mode": "layer_suppress", "outlier_threshold": 1.0, "exclude": ("*embed*", "*lm_head*")}
        list(live.move(make_plan(recipe(family, **still)), DOWN, lambda: False))
        before = live.folded(make_plan(recipe(family, **still)))
        for made in ("svd", "polar", "singular_values"):
            monkeypatch.setattr(f"merging.spectral.{made}", None)  # whoever calls it fails
        plan = make_plan(recipe(family, **(still | moved)))
        list(live.move(plan, DOWN, lambda: False))
        folded = live.folded(plan)
        assert before is not None
        assert folded is not None
        assert all(folded.folds[name].u is fold.u for name, fold in before.folds.items())
        assert not torch.equal(folded.folds[DOWN].x, before.folds[DOWN].x)

    def test_what_a_cancelled_move_left_half_done_is_not_taken_for_done(self, family):
        live = self.live(family)
        *_, _ = live.move(make_plan(recipe(family)), DOWN, lambda: False)
        *_, _ = live.move(make_plan(recipe(family, rank_budget=0.4)), DOWN, lambda: True)
        beside = make_plan(recipe(family, weights=(0.5, 1, 1), rank_budget=0.4))
        first, *_, last = live.move(beside, DOWN, lambda: False)
        assert first == Stale("tensors")
        assert type(last) is StateReady
        assert next(live.move(beside, DOWN, lambda: False)) == Stale("nothing")

    def test_after_any_moves_the_pictures_are_those_of_a_fresh_start(self, family):
        moved = self.live(family)
        for step in (recipe(family), recipe(family, weights=(0.5, 0, 2)), recipe(family, rank_budget=0.4)):
            list(moved.move(make_plan(step), None, lambda: False))
        last = make_plan(recipe(family, weights=(0.5, 0, 2), outlier_threshold=2.0, rank_budget=0.6))
        (first, second) = (
            next(e.look for e in live.move(last, None, lambda: False) if isinstance(e, LookReady))
            for live in (moved, self.live(family))
        )
        for name, view in first.views.items():
            for ours, fresh in zip(view.spectra, second.views[name].spectra, strict=True):
                assert ours.kept == fresh.kept
                torch.testing.assert_close(torch.tensor(ours.values), torch.tensor(fresh.values))
        for measure, conflict in first.conflicts.items():
            torch.testing.assert_close(
                torch.tensor(conflict.values), torch.tensor(second.conflicts[measure].values), equal_nan=True
            )

    def test_the_merged_spectrum_is_that_of_the_merged_delta(self, family):
        live, plan = self.live(family), make_plan(recipe(family, dtype="float32"))
        look = next(e.look for e in live.move(plan, None, lambda: False) if isinstance(e, LookReady))
        delta = live.state(plan)[DOWN] - open_checkpoint("base", family).read(DOWN).float()
        direct = torch.linalg.svdvals(delta.double())
        shown = torch.tensor(look.views[DOWN].spectra[-1].values, dtype=torch.float64)
        torch.testing.assert_close(shown, direct[: len(shown)], atol=1e-5, rtol=0)

    def test_folds_and_rest_are_the_merge(self, family):
        live = self.live(family)
        plan = make_plan(recipe(family, weights=(1.0, 0.5, 1.2), exclude=("*embed*", "*q_proj*")))
        list(live.move(plan, None, lambda: False))
        folded, state = live.folded(plan), live.state(plan)
        assert folded is not None
        assert folded.folds.keys() == {name for name in state if "_proj" in name and "q_proj" not in name}
        assert folded.rest.keys() == state.keys() - folded.folds.keys()
        assert same(folded.rest, {name: state[name] for name in folded.rest})
        base = open_checkpoint("base", family)
        for name, fold in folded.folds.items():
            assert torch.equal((base.read(name).float() + fold.dense()).to(state[name].dtype), state[name])
        assert live.folded(make_plan(recipe(family))) is None

    def test_a_move_that_is_overtaken_after_its_pictures_writes_no_weights(self, family):
        live, plan, over = self.live(family), make_plan(recipe(family)), []
        events = []
        for event in live.move(plan, None, lambda: bool(over)):
            events.append(type(event))
            if isinstance(event, FoldedReady):
                over.append(True)
        assert events[-1] is FoldedReady
        assert live.written(plan) is None
        assert live.folded(plan) is not None

    def test_a_cancelled_move_stops_without_pictures(self, family):
        events = list(self.live(family).move(make_plan(recipe(family)), DOWN, lambda: True))
        assert [type(event) for event in events] == [Stale, FocusReady]


def test_experts_stored_in_float32_float16_and_bfloat16_merge_as_they_are(tmp_path):
    dtypes = {"base": torch.bfloat16, "helpful": torch.float32, "honest": torch.float16, "harmless": torch.bfloat16}
    for name, dtype in dtypes.items():
        make_family(tmp_path / name, dtype=dtype)
    models = [Expert(f"{name}/{name}") for name in list(dtypes)[1:]]
    tensors = dict(merged_tensors(make_plan(Recipe("task_arithmetic", "base/base", tuple(models), folder=tmp_path))))
    base, *experts = (open_checkpoint(f"{name}/{name}", tmp_path) for name in dtypes)
    assert [model.tensors[DOWN].dtype for model in (base, *experts)] == ["BF16", "F32", "F16", "BF16"]
    below = base.read(DOWN).double()
    wanted = below + sum(expert.read(DOWN).double() - below for expert in experts)
    torch.testing.assert_close(tensors[DOWN], wanted.bfloat16(), atol=0, rtol=2**-8)
    assert (tensors[DOWN] == wanted.bfloat16()).float().mean() > 0.99  # one rounding, at the end
