"""Merges in blocks against the same method on whole tensors, and cuts against a full sort."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from benchmarks import family as synthetic
from merging import blocks, cuts, pieces
from merging.blocks import whole
from merging.checkpoint import open_checkpoint
from merging.compute import merged_delta, merged_weights, read_deltas, read_models
from merging.cuts import NOTHING, Cut, find_cuts
from merging.facts import facts_of
from merging.live import LiveMerge
from merging.methods import METHODS
from merging.ops import ascending
from merging.pieces import merged_tensor
from merging.plan import make_plan
from merging.random_bits import BLOCK, Numbers, uniform_bits
from merging.recipe import Expert, Recipe, load_recipe
from tests.pico import config, write_model

SHAPES = {
    "model.embed_tokens.weight": (96, 32),
    "a": (37, 23),
    "b": (61,),
    "c": (1,),
    "d": (3, 7, 5),
    "e": (2, 201),
    "same": (40, 9),
}
IN_BLOCKS = [method.id for method in METHODS.values() if method.blocks]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A base and experts of odd sizes: many equal magnitudes, one delta of zeros, one expert in float32."""
    folder = tmp_path_factory.mktemp("family")
    random = torch.Generator().manual_seed(1)
    base = {name: torch.randn(shape, generator=random).bfloat16() for name, shape in SHAPES.items()}
    for i, model in enumerate(("base", "x", "y", "z")):
        step = {
            n: torch.randint(-4, 5, t.shape, generator=random) / 16 * (i > 0 and n != "same") for n, t in base.items()
        }
        moved = {
            n: (t.float() + step[n]).to(torch.float32 if model == "z" else torch.bfloat16) for n, t in base.items()
        }
        write_model(folder / model, moved, config(1, torch.bfloat16, True))
    return folder


def plan_of(folder, method, **knobs):
    knobs = {key: value for key, value in knobs.items() if METHODS[method].knob(key)}
    names = "xyz"[: METHODS[method].experts[1] - METHODS[method].base_first]
    weights = [
        {"weight": abs(w) if METHODS[method].shares else w} if METHODS[method].uses_weight else {}
        for w in (0.5, -0.25, 1.5)
    ]
    models = [{"model": n, "parameters": w} for n, w in zip(names, weights, strict=False)]
    recipe = {"merge_method": method, "base_model": "base", "models": models, "parameters": knobs, "dtype": "float32"}
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe))
    return make_plan(load_recipe(path))


@pytest.mark.parametrize("size", [64, 1 << 17])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("method", IN_BLOCKS)
def test_blocks_give_what_the_method_makes_of_the_whole_tensor(family, monkeypatch, method, density, size):
    monkeypatch.setattr(blocks, "BLOCK", size)
    monkeypatch.setattr(pieces, "PIECE", 3 * size)
    for rescale in (False, True):
        plan = plan_of(family, method, density=density, gamma=0.05, epsilon=0.1, rescale=rescale, select_topk=density)
        for tensor in plan.tensors:
            assert pieces.in_blocks(plan, tensor)
            if plan.space == "weights":
                expected = merged_weights(plan, tensor, read_models(plan, tensor))
            else:
                base, factors = read_deltas(plan, tensor)
                expected = base.float() + merged_delta(plan, tensor, base, factors)
            assert torch.equal(merged_tensor(plan, tensor, None), expected), (tensor.name, rescale)


@pytest.mark.parametrize("n", [1, 2, 1000, 70_001])
@pytest.mark.parametrize("levels", [1, 5, 10**6])
def test_cuts_keep_what_a_sort_keeps(n, levels):
    random = torch.Generator().manual_seed(n)
    rows = torch.randint(0, levels + 1, (2, n), generator=random).float()
    rows[1, : n // 2] *= 1000  # a sample of pieces sees another mixture than there is
    for share in (0.0, 0.001, 0.3, 0.5, 0.999, 1.0):
        count = int(share * n)
        for row, (cut,) in zip(rows, find_cuts(whole(rows), [[lambda _, n=count: n]] * 2), strict=True):
            kept = torch.zeros_like(row)
            kept[row.argsort(descending=True, stable=True)[:count]] = 1.0
            assert torch.equal(cut.keep(row), row * kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_counts_known_beforehand_give_the_same_cuts_from_fewer_entries(dtype):
    random = torch.Generator().manual_seed(3)
    base = (torch.randn(400, 500, generator=random) / 50).to(dtype).float()
    deltas = (base + torch.randn(2, 400, 500, generator=random) / 1000).to(dtype).float() - base
    counts = tuple(each.magnitudes for each in facts_of(base, deltas).deltas)
    sizes = whole(deltas).map(torch.abs)
    for share in (0.0, 0.01, 0.3, 0.5, 0.999, 1.0):
        wanted = [[lambda _, n=int(share * 200_000): n]] * 2
        assert find_cuts(sizes, wanted, counts) == find_cuts(sizes, wanted)
    read = []
    spied = replace(sizes, read=lambda start, stop: read.append(stop - start) or sizes.read(start, stop))
    find_cuts(spied, [[lambda _: 20_000]] * 2, counts)
    assert sum(read) <= 200_000 if dtype == torch.bfloat16 else sum(read) > 200_000


def test_counts_of_another_tensor_are_not_believed():
    counts = facts_of(torch.ones(1, 2), torch.ones(1, 1, 2)).deltas[0].magnitudes
    row = whole(torch.tensor([[3.0, 1.0, 2.0]]))
    assert find_cuts(row, [[lambda _: 2]], [counts]) == find_cuts(row, [[lambda _: 2]])


def test_a_sample_that_misleads_costs_a_pass_and_no_entry(monkeypatch):
    row = torch.arange(100_000.0)
    for level in (0.0, 1e9):
        monkeypatch.setattr(cuts, "_sample", lambda _, level=level: np.full((1, 100), level, np.float32).view("i4"))
        for count in (1, 10, 50_000, 99_998):
            (cut,) = find_cuts(whole(row.unsqueeze(0)), [[lambda _, n=count: n]])[0]
            assert torch.equal(cut.keep(row), row * (row >= 100_000 - count))


def test_equal_magnitudes_stay_up_to_the_cuts_end():
    row = torch.tensor([1.0, -2.0, 1.0, -1.0, 3.0])
    assert Cut(1.0, 3).keep(row).tolist() == [1.0, -2.0, 1.0, 0.0, 3.0]
    assert Cut(1.0, 3).at(2).keep(row[2:]).tolist() == [1.0, 0.0, 3.0]


def test_rows_rank_by_size_and_equal_entries_by_index():
    almost = 1 + 2.0**-23  # differs from 1 in the last bit alone
    assert ascending(torch.tensor([[2.0, 1.0, 0.0, 1.0], [almost, 1.0, almost, 0.5]])).tolist() == [
        [2, 1, 3, 0],
        [3, 1, 0, 2],
    ]
    assert ascending(torch.tensor([[3.0], [0.0]])).tolist() == [[0], [0]]
    wide = torch.randn(2, 70_001, generator=torch.Generator().manual_seed(1)).abs()
    assert torch.equal(wide.gather(1, ascending(wide)), wide.sort(dim=1).values)


def test_parts_of_random_numbers_are_those_of_the_whole():
    numbers = uniform_bits(1, "expert", "tensor", (BLOCK + 1000,))
    for start, stop in ((0, 5), (BLOCK - 3, BLOCK + 3), (BLOCK + 1, BLOCK + 1000), (7, 7)):
        assert torch.equal(Numbers(1, "expert", "tensor").part(start, stop), numbers[start:stop])


def test_random_numbers_hang_on_seed_owner_tensor_and_block():
    numbers = Numbers(1, "expert", "tensor")
    first = numbers.part(0, BLOCK)
    assert abs(float(first.mean()) - 0.5) < 0.005
    assert (float(first.min()), float(first.max())) == pytest.approx((0, 1), abs=1e-3)
    others = (Numbers(2, "expert", "tensor"), Numbers(1, "another", "tensor"), Numbers(1, "expert", "another"))
    for other in (*(each.part(0, BLOCK) for each in others), numbers.part(BLOCK, 2 * BLOCK)):
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.01  # 5 standard deviations


def test_a_method_says_whether_it_reads_counts_of_magnitudes():
    class Counted(tuple):
        def __len__(self):
            asked.append(1)
            return super().__len__()

    stack = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for method in METHODS.values():
        asked = []
        if method.measure and not method.random and method.space == "delta":
            every = {k.key.replace("lambda", "lambda_"): 0.5 if k.kind == "number" else k.default for k in method.knobs}
            every |= {k.key: torch.tensor([0.5, 0.5]) for k in method.knobs if k.per_expert}
            method.measure(replace(whole(stack, rows=method.blocks == "rows"), counts=Counted()), **every)
        assert bool(asked) == method.magnitudes, method.id


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "breadcrumbs_ties"])
def test_a_slider_looks_for_no_threshold_in_what_the_profile_knows(tmp_path, monkeypatch, method):
    monkeypatch.setitem(synthetic.SIZES, "narrow", (64, 96, 1, 50, 2, 2))
    folder, names = synthetic.make_family("narrow", tmp_path), synthetic.EXPERTS
    models = [open_checkpoint(name, folder) for name in ("base", *names)]
    live = LiveMerge(models[0], models[1:], names)

    def plan(density):
        experts = tuple(Expert(name, (("density", density),)) for name in names)
        return make_plan(Recipe(method, "base", experts, folder=folder))

    scanned, plain = [], cuts._scan
    monkeypatch.setattr(cuts, "_scan", lambda sizes, *near: scanned.append(sizes.shape) or plain(sizes, *near))
    list(live.move(plan(0.3), None, lambda: False))
    scanned.clear()
    list(live.move(plan(0.4), None, lambda: False))
    matrices = {(matrix.shape[0] * matrix.shape[1],) for matrix in live.family.matrices}
    assert not matrices & set(scanned)
    state = live.state(plan(0.4))
    for tensor in plan(0.4).tensors:
        assert torch.equal(state[tensor.name], merged_tensor(plan(0.4), tensor, None)), tensor.name


def test_a_cut_that_keeps_nothing_is_the_same_in_every_block():
    assert NOTHING.at(5) is NOTHING, "so that no time is spent on it"
    assert Cut(0.5, 7).at(5) == Cut(0.5, 2)
