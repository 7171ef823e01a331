"""Literal inputs and expected tensors of the arc, mask and element-wise methods, worked out by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import tensor

from merging.blocks import whole
from merging.drawn import drawn_shares
from merging.engine import merged_tensors
from merging.masks import keep_chances
from merging.methods import METHODS
from merging.methods.sce import select
from merging.plan import check, make_plan
from merging.random_bits import uniform_bits
from merging.recipe import parse_recipe
from tests.keywords import keywords

LLAMA = Path(__file__).parents[1] / "goldens" / "llama"
HALF = 2**-0.5
TO_TEN = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]


def run(name, inputs, weights=None, **settings):
    """A method in float64 with its defaults for what is not given."""
    method = METHODS[name]
    stacked = torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in inputs])
    arguments = keywords(method, **settings)
    for knob in method.knobs:
        if knob.per_expert:
            arguments[knob.key] = torch.full((len(inputs),), arguments[knob.key], dtype=torch.float64)
    return method(stacked, tensor(weights or [1.0] * len(inputs), dtype=torch.float64), **arguments)


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def test_rewarded_soup_takes_weights_as_shares():
    close(run("rewarded_soup", [[0.0, 4.0], [2.0, 0.0]], [1.0, 3.0]), [1.5, 1.0])


def test_nuslerp_walks_the_arc_by_weights():
    close(run("nuslerp", [[1.0, 0.0], [0.0, 1.0]]), [HALF, HALF])
    quarter = math.radians(67.5)
    close(run("nuslerp", [[1.0, 0.0], [0.0, 1.0]], [0.25, 0.75]), [math.cos(quarter), math.sin(quarter)])
    close(run("nuslerp", [[1.0, 0.0], [0.0, 2.0]], [1.0, -1.0]), [HALF, 2 * HALF])  # a sum of 0: the middle
    close(run("nuslerp", [[1.0, 0.0], [3.0, 0.0]], [0.25, 0.75]), [2.5, 0.0])
    close(run("nuslerp", [[1.0, 0.0], [0.0, 3.0]], [0.0, 1.0]), [0.0, 3.0])


def test_nuslerp_of_opposite_models_is_the_straight_line():
    opposite = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])  # in float32 the sine of pi is just below 0
    settings = {"nuslerp_flatten": True, "nuslerp_row_wise": False}
    close(METHODS["nuslerp"](opposite, tensor([0.25, 0.75]), **settings), [-2.0, 0.0])


def test_nuslerp_by_rows_and_by_columns():
    rows = [[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [4.0, 0.0]]]
    close(run("nuslerp", rows, nuslerp_flatten=False), [[HALF, HALF], [3.0, 0.0]])
    columns = [[[1.0, 2.0], [0.0, 0.0]], [[0.0, 4.0], [1.0, 0.0]]]
    close(run("nuslerp", columns, nuslerp_flatten=False, nuslerp_row_wise=True), [[HALF, 3.0], [HALF, 0.0]])


def test_multislerp_averages_directions_and_lengths_apart():
    # not SLERP's 67.5 degrees but 71.57: the direction is (1, 3) / sqrt(10)
    close(run("multislerp", [[1.0, 0.0], [0.0, 1.0]], [0.25, 0.75]), [10**-0.5, 3 * 10**-0.5], 1e-7)
    close(run("multislerp", [[1.0, 0.0], [0.0, 2.0]], normalize_weights=False), [3 * HALF, 3 * HALF], 1e-7)
    close(run("multislerp", [[1.0, 0.0], [-3.0, 0.0]]), [-1.0, 0.0])  # no mean direction: the weighted mean
    close(run("multislerp", [[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]]), [0.0, 0.0])


def test_karcher_mean_of_two_lies_halfway_at_the_mean_length():
    close(run("karcher", [[1.0, 0.0], [0.0, 3.0]]), [2 * HALF, 2 * HALF])
    close(run("karcher", [[0.0, 0.0], [2.0, 0.0]]), [1.0, 0.0])  # no direction, but a length of 0
    close(run("karcher", [[1.0, 0.0], [-1.0, 0.0]]), [1.0, 0.0])
    # at 0, 0 and 90 degrees: the mean of angles is 30, that of vectors arctan(1/2)
    thirty, first = math.radians(30), math.atan(0.5)
    three = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    close(run("karcher", three, tol=1e-9), [math.cos(thirty), math.sin(thirty)])
    close(run("karcher", three, max_iter=0), [math.cos(first), math.sin(first)])


def test_karcher_mean_where_models_cancel_is_the_first():
    around = [[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in (0, 120, 240)]
    close(run("karcher", around), [1.0, 0.0])  # in float64 their sum is 1e-16, not 0
    # the third stands opposite to the mean of the others and pulls nowhere
    close(run("karcher", [[1.0, 0.0], [0.0, 1.0], [-HALF, -HALF]]), [HALF, HALF])


def test_the_pulls_on_a_karcher_mean_cancel():
    models = torch.randn(5, 1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    models += torch.linspace(-1, 3, 1000)
    mean, directions = (x / x.norm(dim=-1, keepdim=True) for x in (run("karcher", models, tol=1e-9), models))
    cosines = directions @ mean
    pulls = (cosines.acos() / cosines.acos().sin()).unsqueeze(1) * (directions - cosines.unsqueeze(1) * mean)
    close(pulls.sum(0), torch.zeros(1000))


def test_karcher_mean_of_models_that_lie_close():
    base = torch.randn(200_000, generator=torch.Generator().manual_seed(2))
    steps = 1e-4 * torch.randn(3, 200_000, generator=torch.Generator().manual_seed(3))
    found = METHODS["karcher"](base + steps, torch.ones(3), max_iter=10, tol=1e-5)
    close(found, base + steps.mean(0), atol=1e-6)


def test_della_keeps_by_rank_in_the_row():
    row = tensor([[1.0, -4.0, 2.0, 3.0]], dtype=torch.float64)
    close(keep_chances(row, 0.5, 0.15), [[0.35, 0.65, 0.45, 0.55]])
    close(keep_chances(tensor([[1.0], [2.0]]), 0.5, 0.15), [[0.5], [0.5]])  # rows of one entry
    close(keep_chances(tensor(3.0), 0.5, 0.15), 0.5)
    given = {"density": 0.5, "bits": lambda t: tensor([[0.1, 0.9, 0.4, 0.5]])}
    for name in ("della", "della_linear"):
        close(run(name, [row], **given), [[10 / 6, 0.0, 20 / 6, 5.0]])  # 6 of 10 left
        close(run(name, [row], **given, convention="paper"), [[1 / 0.35, 0.0, 2 / 0.45, 3 / 0.55]])
        close(run(name, [row], **given, rescale=False), [[1.0, 0.0, 2.0, 3.0]])
        close(run(name, [row], density=1.0, bits=given["bits"]), row)


def test_della_elects_a_sign_and_della_linear_does_not():
    deltas, given = [[1.0, -2.0], [2.0, 1.0]], {"bits": lambda t: torch.zeros(2)}
    close(run("della", deltas, **given), [1.5, -2.0])
    close(run("della_linear", deltas, **given), [3.0, -1.0])


def test_della_in_the_papers_form_is_unbiased():
    total = torch.zeros(4, dtype=torch.float64)
    for seed in range(2000):
        bits = uniform_bits(seed, "expert", "tensor", (4,))
        given = {"density": 0.5, "convention": "paper", "bits": lambda t, b=bits: b}
        total += run("della_linear", [[1.0, -2.0, 3.0, 4.0]], **given)
    close(total / 2000, [1.0, -2.0, 3.0, 4.0], atol=0.3)  # 4 standard errors of the largest entry are .26


def test_breadcrumbs_drops_both_ends():
    close(run("breadcrumbs", [TO_TEN], density=0.5, gamma=0.2), [0, 0, 0, 4, 5, 6, 7, 8, 0, 0])
    close(run("breadcrumbs", [TO_TEN], density=0.9, gamma=0.2), [*TO_TEN[:9], 0])  # the upper cut shrinks
    close(run("breadcrumbs", [TO_TEN], density=0.5, gamma=0.0), [0, 0, 0, 0, 0, 6, 7, 8, 9, 10])
    close(run("breadcrumbs", [TO_TEN], density=0.5, gamma=0.05), [0, 0, 0, 0, 0, 6, 7, 8, 9, 10])  # int(.5) is 0
    close(run("breadcrumbs", [TO_TEN[:4]], density=0.5, gamma=0.25, rescale=True), [0, 4, 6, 0])


def test_breadcrumbs_with_and_without_election():
    deltas = [[1.0, 2.0, 3.0, 4.0], [-1.0, -1.0, 1.0, -9.0]]  # kept: 2, 3 and the first two of three equal ones
    close(run("breadcrumbs", deltas, density=0.5, gamma=0.25), [-1.0, 1.0, 3.0, 0.0])
    close(run("breadcrumbs_ties", deltas, density=0.5, gamma=0.25), [-1.0, 2.0, 3.0, 0.0])


def test_model_stock_follows_the_cosine():
    close(run("model_stock", [[1.0, 0.0], [0.6, 0.8]]), [0.6, 0.3])  # c .6, t .75
    away = [[1.0, 0.0], [-0.6, 0.8]]  # c -.6, t -3
    close(run("model_stock", away), [-0.6, -1.2])
    close(run("model_stock", away, clamp=True), [0.0, 0.0])
    close(run("model_stock", [[1e-4] * 4] * 2), [1e-4] * 4)  # no absolute floor under the norms
    close(run("model_stock", [[1.0], [-2.0]]), [0.0])  # the pole
    rows = [[[1.0, 0.0], [1.0, 0.0]], [[0.6, 0.8], [1.0, 1.0]]]
    t = 2 * HALF / (1 + HALF)
    close(run("model_stock", rows, filter_wise=True), [[0.6, 0.3], [t, t / 2]])


def test_sce_selects_calculates_erases():
    deltas = [[1.0, 2.0, 3.0, -4.0], [1.0, -1.0, 2.0, 4.0]]  # energies 30 and 22; variances 0, 2.25, .25, 16
    close(run("sce", deltas), [1.0, 2.0, (3 * 30 + 2 * 22) / 52, 4.0])
    close(run("sce", deltas, select_topk=0.5), [0.0, 0.0, 0.0, 4.0])  # int(.5 * 3) entries
    small = [[1e-4, 2e-4], [3e-4, 6e-4]]
    close(run("sce", small), [2e-4, 4e-4])
    close(run("sce", small, convention="paper"), [2.8e-4, 5.6e-4])


def test_sces_shares_hang_on_no_place_in_memory():
    """An export reads rows elsewhere than the live merge, and must write the same bytes."""
    n = 5001
    rows = torch.randn(3, n, generator=torch.Generator().manual_seed(0))
    found = set()
    for place in range(16):
        elsewhere = torch.zeros(3, n + 16)[:, place : place + n]
        elsewhere.copy_(rows)
        found.add(select(whole(elsewhere), select_topk=1.0, convention="mergekit").shares)
    assert len(found) == 1


def test_ram_keeps_what_one_expert_changed():
    close(run("ram", [[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, -1.0]]), [2.0, 2.0, 0.0, -1.0])
    close(run("ram", [[1.0, 2.0], [0.5, 0.0]], epsilon=0.6), [1.0, 2.0])
    deltas = [[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 5.0, -1.0]]  # shared to unique: 1 to 1, and 1 to 2
    close(run("ramplus_tl", deltas), [2.0, 2.04, 5.1, -1.02])
    close(run("ramplus_tl", deltas, alpha=1.0), [2.0, 2.2, 5.25, -1.05])


def test_nearswap_moves_no_entry_by_more_than_t():
    close(run("nearswap", [[0.0, 1.0, 2.0, 3.0], [0.0, 1.5, 4.0, -3.0]], t=0.5), [0.0, 1.5, 2.5, 2.5])


def test_arcee_fusion_takes_what_stands_out():
    # one row: importance follows |difference| 0 1 2 3 10, threshold 2 + 1.5 (3 - 1) = 5
    close(run("arcee_fusion", [[0.0] * 5, [0.0, 1.0, -2.0, 3.0, 10.0]]), [0.0, 0.0, 0.0, 0.0, 10.0])


def test_passthrough_scales():
    close(run("passthrough", [[1.0, -2.0]], scale=1.5), [1.5, -3.0])


def test_consensus_keeps_what_several_experts_use():
    deltas = [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    close(run("consensus_ta", deltas, **{"lambda": 0.5}), [0.0, 0.0, 1.0])
    close(run("consensus_ta", deltas, k=1), [1.0, 1.0, 2.0])
    close(run("consensus_ta", deltas, lam=1.5), [0.0, 0.0, 0.0])  # 1 is not above 1.5 (2 - 1)
    against = [[1.0, -1.0, 1.0], [1.0, 3.0, 1.0]]  # TIES: 2, 3, 2
    close(run("consensus_ties", against), [2.0, 0.0, 2.0])
    close(run("consensus_ties", against, k=1), [2.0, 3.0, 2.0])


def test_pcb_lets_the_strongest_share_win():
    alone = {"clamp": 0.0}
    close(run("pcb", [TO_TEN[:5]], ratio=1.0, **alone), [0.0, 2.0, 3.0, 4.0, 5.0])  # the smallest scores 0
    close(run("pcb", [TO_TEN[:5]], ratio=0.4, **alone), [0.0, 0.0, 0.0, 4.0, 5.0])
    two = tensor([[1.0, -2.0, 3.0, 0.5], [2.0, 1.0, 2.5, -4.0]], dtype=torch.float64)
    close(run("pcb", 1e-4 * two, ratio=1.0), 1e-4 * run("pcb", two, ratio=1.0), 1e-12)


def test_m3_draws_one_mix():
    # Gamma(1) has its quantiles at -log(1 - u): log 2 and log 4, so shares of 1/3 and 2/3
    found = run("m3", [[0.0, 3.0], [3.0, 0.0]], alpha=1.0, bits=lambda t, once: tensor([0.5, 0.75][t]))
    close(found, [2.0, 1.0], 1e-6)
    shares = [
        run("m3", [0.0, 1.0], bits=lambda t, once, s=seed: uniform_bits(s, "ab"[t], "", ())).item()
        for seed in range(200)
    ]
    spread = tensor(shares)
    assert spread.mean().item() == pytest.approx(0.5, abs=0.1)
    assert spread.var().item() == pytest.approx(0.125, abs=0.025)  # Beta(a, a): 1 / (4 (2 a + 1))


def recipe(method, weights, base=True, extra=""):
    models = [f"{{model: models/{name}, parameters: {{weight: {w}}}}}" for name, w in weights.items()]
    line = "base_model: models/base\n" if base else ""
    return parse_recipe(f"merge_method: {method}\n{line}models: [{', '.join(models)}]\n{extra}", LLAMA)


def test_m3_mixes_every_tensor_alike_and_another_seed_differently():
    def shares(seed, names):
        plan = make_plan(recipe("m3", dict.fromkeys(names, 1), extra=f"seed: {seed}"))
        first, second = plan.experts
        for name, merged in merged_tensors(plan):
            a, b = first.read(name), second.read(name)
            gap = (b - a).double().flatten()
            yield names[0], round(float(((merged - a).double().flatten() @ gap) / (gap @ gap)), 4)

    (_, share), *others = set(shares(1, ("helpful", "honest")))
    assert not others, "one draw for the whole merge"
    drawn = drawn_shares(make_plan(recipe("m3", {"helpful": 1, "honest": 1}, extra="seed: 1")))
    assert drawn == pytest.approx([1 - share, share], abs=2e-4)
    assert drawn_shares(make_plan(recipe("linear", {"helpful": 1, "honest": 1}))) == []
    ((_, turned),) = set(shares(1, ("honest", "helpful")))
    assert share + turned == pytest.approx(1.0, abs=2e-4)
    assert set(shares(2, ("helpful", "honest"))) != {("helpful", share)}


@pytest.mark.parametrize(
    ("method", "weights", "base", "what"),
    [
        ("rewarded_soup", {"helpful": 1, "honest": -0.5}, False, "takes no weight below 0"),
        ("rewarded_soup", {"helpful": 0, "honest": 0}, False, "sum to 0"),
        ("multislerp", {"helpful": 1, "honest": -1}, True, "sum to 0"),
        ("multislerp", {"helpful": 1, "honest": -1}, False, "sum to 0"),
    ],
)
def test_weights_that_make_no_share_are_refused(method, weights, base, what):
    (problem,) = check(recipe(method, weights, base)).problems
    assert what in problem.what
    assert problem.code == "E_WEIGHTS"


def test_a_density_of_nine_tenths_keeps_nine_of_ten():
    from merging.compute import method_settings

    plan = make_plan(recipe("breadcrumbs", {"helpful": 1}, extra="parameters: {density: 0.9}"))
    settings = method_settings(plan, plan.tensors[0], [0], torch.zeros(1, 4, 4))
    assert int(10 * float(settings["density"][0])) == 9
