"""Literal inputs and expected matrices, worked out by hand, for each merge method."""

import pytest
import torch
from torch import tensor

from merging.decompose import noise_floor
from merging.methods import METHODS
from merging.methods.resm import resm
from merging.ops import hoyer_sparsity, outlier_threshold, sparsity
from merging.polar import polar
from merging.spectral import Factors, Fold
from tests.keywords import keywords


def run(name, inputs, weights=None, **settings):
    """A method on stacked inputs with defaults for what is not given; spectral results as dense matrices."""
    method = METHODS[name]
    stacked = torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in inputs])
    arguments = keywords(method, **settings)
    for knob in method.knobs:
        if knob.per_expert:
            arguments[knob.key] = torch.as_tensor([arguments[knob.key]] * len(inputs))
    ones = torch.ones(len(inputs), dtype=torch.float64) if weights is None else tensor(weights, dtype=torch.float64)
    found = method(Factors(stacked) if method.spectral else stacked, ones, **arguments)
    return found.dense() if isinstance(found, Fold) else found


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def diag(*values):
    return torch.diag(tensor(values, dtype=torch.float64))


def test_linear_averages_by_weight():
    close(run("linear", [[0.0, 4.0], [2.0, 0.0]], [1.0, 3.0]), [1.5, 1.0])
    close(run("linear", [[0.0, 4.0], [2.0, 0.0]], [1.0, 3.0], normalize=False), [6.0, 4.0])


def test_slerp_walks_the_arc_and_ends_at_its_ends():
    close(run("slerp", [[1.0, 0.0], [0.0, 1.0]], t=0.5), [2**-0.5, 2**-0.5])
    close(run("slerp", [[1.0, 0.0], [0.0, 3.0]], t=0.0), [1.0, 0.0])
    close(run("slerp", [[1.0, 0.0], [0.0, 3.0]], t=1.0), [0.0, 3.0])


def test_slerp_of_parallel_and_zero_models_is_the_straight_line():
    close(run("slerp", [[1.0, 0.0], [3.0, 0.0]], t=0.25), [1.5, 0.0])
    close(run("slerp", [[0.0, 0.0], [2.0, 4.0]], t=0.5), [1.0, 2.0])


def test_task_arithmetic_sums_deltas():
    close(run("task_arithmetic", [[1.0, 2.0], [3.0, -4.0]], [0.5, 1.0], **{"lambda": 2.0}), [7.0, -6.0])
    close(run("task_arithmetic", [[1.0, 2.0], [3.0, -4.0]], [1.0, 3.0], normalize=True), [2.5, -2.5])


def test_ties_trims_elects_and_averages_those_that_agree():
    deltas = [[1.0, -2.0, 3.0, 0.1], [-0.5, -1.0, -4.0, 0.2]]
    # kept: [0, -2, 3, 0] and [0, -1, -4, 0]; signs of the sums: -, - ; agreeing means: -1.5 and -4
    close(run("ties", deltas, density=0.5), [0.0, -1.5, -4.0, 0.0])
    # sums [.5, -3, -1, .3] elect +, -, -, +; agreeing: 1 | -2, -1 | -4 | .1, .2
    close(run("ties", deltas, normalize=False), [1.0, -3.0, -4.0, 0.3])


def test_ties_breaks_magnitude_ties_by_the_lowest_index():
    # a single expert's merge is its trimmed delta
    close(run("ties", [[1.0, -1.0, 1.0, 1.0]], density=0.5), [1.0, -1.0, 0.0, 0.0])
    close(run("ties", [[1.0, -2.0, 1.0, 3.0]], density=0.75), [1.0, -2.0, 0.0, 3.0])
    close(run("ties", [[1.0, 2.0]], density=0.0), [0.0, 0.0])
    close(run("ties", [[1.0, 2.0]], density=1.0), [1.0, 2.0])


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_dare_keeps_where_the_uniform_number_is_below_the_density(name):
    def bits(t):
        return tensor([[0.1, 0.9, 0.2, 0.8]][t])

    # kept 2 and 6 of |2|+|4|+|6|+|8| = 20: the L1 rescale multiplies by 20 / 8, the paper's by 1 / 0.5
    close(run(name, [[2.0, 4.0, 6.0, 8.0]], density=0.5, bits=bits), [5.0, 0.0, 15.0, 0.0])
    close(run(name, [[2.0, 4.0, 6.0, 8.0]], density=0.5, bits=bits, convention="paper"), [4.0, 0.0, 12.0, 0.0])
    close(run(name, [[2.0, 4.0, 6.0, 8.0]], density=0.5, bits=bits, rescale=False), [2.0, 0.0, 6.0, 0.0])


def test_dare_at_density_one_is_task_arithmetic():
    deltas = [[1.0, 2.0], [3.0, -4.0]]
    close(run("dare_linear", deltas, bits=lambda t: torch.full((2,), 0.5)), run("task_arithmetic", deltas))


def test_dare_in_the_papers_form_is_unbiased():
    from merging.random_bits import uniform_bits

    total = torch.zeros(4, dtype=torch.float64)
    for seed in range(2000):
        bits = uniform_bits(seed, "expert", "tensor", (4,))
        total += run("dare_linear", [[1.0, -2.0, 3.0, 4.0]], density=0.5, convention="paper", bits=lambda t, b=bits: b)
    close(total / 2000, [1.0, -2.0, 3.0, 4.0], atol=0.3)  # 4 standard errors of the largest entry are .36


class TestSpectral:
    def test_diagonal_experts_add_up(self):
        close(run("tsv_m", [diag(2, 0), diag(0, 1)]), diag(2, 1))
        close(run("resm", [diag(2, 0), diag(0, 1)], outlier_mode="none", rank_mode="uniform"), diag(2, 1))

    def test_duplicates_stay_themselves_with_a_tolerance_and_explode_without(self):
        close(run("resm", [diag(1, 0)] * 2, outlier_mode="none", rank_mode="uniform"), diag(1, 0))
        plain = run("tsv_m", [diag(1, 0)] * 2)
        assert plain.norm() == pytest.approx(2**0.5)  # the missing direction is filled with an arbitrary one

    def test_one_expert_without_outliers_at_full_rank_is_itself(self):
        delta = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        close(run("resm", [delta], outlier_mode="none", rank_mode="uniform"), delta, atol=1e-12)
        close(run("tsv_m", [delta]), delta, atol=1e-12)

    def test_orthogonal_low_rank_experts_sum_exactly_because_the_rank_is_capped(self):
        q = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).Q
        p = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
        first = q[:, :10] @ diag(*range(11, 21)) @ p[:, :10].T
        second = q[:, 10:20] @ diag(*range(1, 11)) @ p[:, 10:20].T
        close(run("resm", [first, second], outlier_mode="none", rank_mode="uniform"), first + second, atol=1e-11)

    def test_order_scale_and_transpose(self):
        a, b, c = torch.randn(3, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        merged = run("resm", [a, b, c])
        close(run("resm", [c, a, b]), merged, atol=1e-12)
        close(run("resm", [3 * a, 3 * b, 3 * c]), 3 * merged, atol=1e-11)
        close(run("resm", [a.T, b.T, c.T]), merged.T, atol=1e-12)

    def test_rank_of_the_merge_is_at_most_the_sum_of_the_ranks_kept(self):
        deltas = torch.randn(3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        fold = resm(Factors(deltas), torch.ones(3), **_keywords(rank_budget=0.3))
        assert sum(fold.ranks) <= 6
        assert int(torch.linalg.matrix_rank(fold.dense())) <= sum(fold.ranks)

    def test_without_outliers_and_sparsity_it_is_tsv_m(self):
        deltas = list(torch.randn(3, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(6)))
        found = run("resm", deltas, outlier_threshold=1e6, sparsity_threshold=0.0, polar_tolerance=0.0)
        close(found, run("tsv_m", deltas), atol=0.0)

    def test_a_zero_expert_keeps_nothing_and_harms_nothing(self):
        fold = resm(Factors(torch.stack([diag(2, 1), diag(0, 0)])), torch.ones(2), **_keywords())
        assert fold.ranks == (1, 0)
        assert torch.isfinite(fold.dense()).all()

    def test_more_experts_than_directions_keep_the_largest_triplets(self):
        deltas = [diag(1, 0), diag(0, 2), diag(3, 0)]
        fold = resm(Factors(torch.stack(deltas)), torch.ones(3), **_keywords(outlier_mode="none", rank_mode="uniform"))
        assert fold.ranks == (0, 1, 1)
        close(fold.dense(), diag(3, 2))

    def test_the_clamp_of_the_worked_example(self):
        matrix = torch.full((10, 100), 0.01, dtype=torch.float64)
        matrix[3, 7] = 100.0
        assert matrix.abs().mean() == pytest.approx(0.10999)
        assert matrix.abs().std(correction=0) == pytest.approx(3.16038, abs=1e-5)
        assert outlier_threshold(matrix.abs(), 3.0).item() == pytest.approx(9.591130, abs=1e-6)
        clamped = matrix.clone()
        clamped[3, 7] = 9.591130
        close(run("resm", [matrix], rank_mode="uniform"), clamped, atol=1e-6)

    def test_closed_form_spectrum_also_when_directions_were_dropped(self):
        duplicate = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
        for deltas in ([duplicate, duplicate], [duplicate, -duplicate.flip(0)]):
            fold = resm(Factors(torch.stack(deltas)), tensor([1.0, 0.5]), **_keywords(outlier_mode="none"))
            direct = torch.linalg.svdvals(fold.dense())
            close(fold.singular_values()[: len(direct)], direct[: len(fold.singular_values())], atol=1e-10)

    def test_layer_modes_have_mean_one_and_follow_the_outlier_mass(self):
        quiet, loud = torch.ones(4, 4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)
        loud[0, 0] = 50.0
        for mode, louder in (("layer_emphasise", True), ("layer_suppress", False)):
            fold = resm(Factors(torch.stack([quiet, loud])), torch.ones(2), **_keywords(outlier_mode=mode))
            assert sum(fold.outlier_weights) == pytest.approx(2.0)
            assert (fold.outlier_weights[1] > fold.outlier_weights[0]) is louder

    def test_layer_emphasise_without_any_outlier_changes_nothing(self):
        deltas = list(torch.ones(2, 4, 4, dtype=torch.float64) * tensor([[[1.0]], [[2.0]]]))
        close(run("resm", deltas, outlier_mode="layer_emphasise"), run("resm", deltas, outlier_mode="none"))


def _keywords(**settings):
    return keywords(METHODS["resm"], **settings)


def test_rank_rules_by_hand():
    # 6 x 6, two experts: r / T = 3. The first has 4 of 6 x 6 entries; the second is full.
    sparse = torch.zeros(6, 6, dtype=torch.float64)
    sparse[:4, :4] = diag(4, 3, 2, 1)
    dense = torch.full((6, 6), 1.0, dtype=torch.float64) + 6 * diag(6, 5, 4, 3, 2, 1)
    factors = Factors(torch.stack([sparse, dense]))
    ranks = lambda **s: resm(factors, torch.ones(2), **_keywords(outlier_mode="none", **s)).ranks  # noqa: E731
    assert sparsity(sparse, 0.1) == pytest.approx(32 / 36)
    assert ranks() == (1, 3)  # floor(4/36 * 3) = 0, but a delta that is not 0 keeps one
    assert ranks(rank_mode="uniform") == (3, 3)
    assert ranks(rank_mode="uniform", rank_budget=0.5) == (1, 1)
    assert ranks(rank_mode="energy", energy=0.5)[0] == 1  # of 16 + 9 + 4 + 1
    assert ranks(rank_mode="energy", energy=0.9)[0] == 3
    assert ranks(rank_mode="energy", energy=1.0)[0] == 3  # 4 would hold all, but r / T is 3
    assert ranks(rank_mode="sparsity_budget", peak=tensor([1.0, 1.0])) == (1, 3)
    assert ranks(rank_mode="sparsity_budget", peak=tensor([4 / 36, 1.0], dtype=torch.float64)) == (3, 3)


def test_hoyer_sparsity_at_its_ends():
    assert hoyer_sparsity(torch.ones(16)) == pytest.approx(0.0, abs=1e-6)
    assert hoyer_sparsity(torch.eye(1, 16)) == pytest.approx(1.0)
    assert hoyer_sparsity(torch.zeros(16)) == 0.0


def test_row_scope_and_mad_threshold():
    size = tensor([[1.0, 1.0, 1.0, 5.0], [2.0, 2.0, 2.0, 2.0]])
    close(outlier_threshold(size, 1.0, scope="row"), [[2.0 + 3**0.5], [2.0]], atol=1e-6)
    # median of 1 1 1 5 2 2 2 2 is 2; distances 1 1 1 3 0 0 0 0, their median .5
    close(outlier_threshold(size, 2.0, stat="mad"), [[2.0 + 2 * 1.4826 * 0.5]], atol=1e-6)


def test_rounding_noise_of_bf16_does_not_count_as_rank():
    generator = torch.Generator().manual_seed(8)
    base = torch.randn(512, 384, generator=generator) * 0.02
    delta = torch.randn(512, 4, generator=generator) @ torch.randn(4, 384, generator=generator) * 1e-3
    stored = base.bfloat16(), (base + delta).bfloat16()
    difference = (stored[1].float() - stored[0].float())[None]
    assert Factors(difference).numerical_rank(0) == 384
    assert Factors(difference, noise_floor(stored[0])).numerical_rank(0) == 4


@pytest.mark.parametrize("mode", ["huber", "drop"])
def test_a_mostly_zero_delta_is_no_outlier_as_a_whole(mode):
    # 2 of 9 entries: median and MAD are 0, and a threshold of 0 would take everything away
    sparse = diag(2, 1, 0)
    close(run("resm", [sparse], outlier_mode=mode, outlier_stat="mad", rank_mode="uniform"), sparse)
    both = Factors(torch.stack([sparse, torch.ones(3, 3, dtype=torch.float64)]))
    fold = resm(both, torch.ones(2), **_keywords(outlier_mode="layer_suppress", outlier_stat="mad"))
    assert fold.outlier_weights == (1.0, 1.0)


def test_a_delta_below_the_noise_keeps_one_direction():
    factors = Factors(torch.stack([diag(1e-4, 1e-5), diag(0, 0)]), noise=1.0)
    assert [factors.numerical_rank(t) for t in (0, 1)] == [1, 0]


def test_polar_is_a_partial_isometry():
    a = torch.cat([torch.eye(4, 2), torch.eye(4, 2)], 1)
    isometry, turn = polar(a, 1e-3)
    assert turn.shape == (2, 4)
    close(isometry, a / 2**0.5, atol=1e-6)
