"""Shapers by hand-worked spectra, their invariants, and their place in a recipe: method, shaper, scale."""

from dataclasses import replace

import pytest
import torch
from torch import tensor

from merging.calibration import Inputs
from merging.decompose import SVD, svd
from merging.engine import merged_tensors
from merging.errors import UserError
from merging.outputs import kept_by
from merging.plan import check, make_plan
from merging.recipe import parse_recipe
from merging.shapers import SHAPERS
from merging.shaping import SHAPING, enter, shaped
from merging.spectral import Factors, Fold
from tests.pico import make_family

I2, SHEAR = torch.eye(2, dtype=torch.float64), tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
SPECTRUM = tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)


def defaults(**settings):
    return {knob.key: knob.default for knob in SHAPING} | settings


def white(n, width):
    """Every expert met every input alike; the base reads its first inputs most."""
    columns = torch.arange(width, 0, -1, dtype=torch.float64).expand(n, 2, width)
    return Inputs(lambda _: torch.eye(width, dtype=torch.float64), base_columns=lambda: columns)


def after(name, merged, experts, weights=None, inputs=None, **settings):
    """A merged matrix as the shaper leaves it; experts are its experts' deltas or Factors."""
    factors = experts if isinstance(experts, Factors) else Factors(torch.stack([x.double() for x in experts]))
    ones = torch.ones(len(factors.deltas), dtype=torch.float64) if weights is None else tensor(weights).double()
    keys = {f"{name}_{key}": value for key, value in settings.items()}
    inputs = inputs or white(len(factors.deltas), factors.deltas.shape[2])
    found = shaped(SHAPERS[name], merged, factors, ones, defaults(**keys), inputs)
    return found.dense() if isinstance(found, Fold) else found


def strengths(name, values, **settings):
    spectrum = SVD(torch.eye(4).double(), values, torch.eye(4).double())
    settings = {
        key: knob.default for key, knob in ((k.key.split("_", 1)[1], k) for k in SHAPERS[name].knobs)
    } | settings
    return SHAPERS[name](spectrum, Factors(torch.eye(4).double()[None]), **settings)


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def diag(*values):
    return torch.diag(tensor(values, dtype=torch.float64))


def random(n, rows, columns, seed=0):
    return torch.randn(n, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestSvc:
    @pytest.mark.parametrize(("alpha", "expected"), [(0.1, (3.6364, 1.8182)), (0.5, (2.6667, 1.3333)), (1.0, (2, 1))])
    def test_orthogonal_experts(self, alpha, expected):
        close(after("svc", diag(2, 1), [diag(2, 0), diag(0, 1)], alpha=alpha), diag(*expected), atol=1e-4)

    @pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
    def test_duplicates_are_counted_once(self, alpha):
        close(after("svc", diag(2, 0), [diag(1, 0)] * 2, alpha=alpha), diag(1, 0))
        delta = random(1, 7, 5)[0]
        close(after("svc", 3 * delta, [delta] * 3, alpha=alpha), delta)
        close(after("svc", delta, [delta], alpha=alpha), delta)

    def test_after_task_arithmetic_at_a_small_scale(self):
        close(after("svc", diag(0.9, 0), [diag(1, 0)] * 3, alpha=0.1), diag(1, 0))

    def test_experts_that_share_a_part(self):
        close(after("svc", I2 + SHEAR, [I2, SHEAR]), [[1.10557, 0.44721], [-0.21115, 0.86950]], atol=1e-5)

    def test_after_the_mean_it_does_nothing(self):
        deltas = random(3, 7, 5)
        close(after("svc", deltas.mean(0), list(deltas)), deltas.mean(0))

    def test_weights_keep_their_proportion(self):
        # weights 2 and 1 are 4/3 and 2/3 of their mean: s = 4 / (8/3) = 1 / (2/3) = 1.5 in both directions, g = 2 / 2.5
        close(after("svc", diag(4, 1), [diag(2, 0), diag(0, 1)], [2.0, 1.0]), diag(3.2, 0.8))


class TestStar:
    @pytest.mark.parametrize(
        ("eta", "expected"),
        [(40.0, (10, 0, 0, 0)), (40.0001, (40 / 7, 30 / 7, 0, 0)), (100.0, (4, 3, 2, 1)), (0.0, (10, 0, 0, 0))],
    )
    def test_keeps_the_nuclear_norm(self, eta, expected):
        close(strengths("star", SPECTRUM, eta=eta), expected)


@pytest.mark.parametrize(("beta", "expected"), [(0.0, (4, 4, 4, 4)), (0.5, (4, 3, 3, 3)), (0.8, (4, 3, 2, 2))])
def test_floor_raises_weak_directions(beta, expected):
    close(strengths("floor", SPECTRUM, beta=beta), expected)


def test_cap_and_mean():
    close(strengths("cap", SPECTRUM, quantile=0.5), (2.5, 2.5, 2, 1))
    close(strengths("cap", SPECTRUM, quantile=1.0), SPECTRUM)
    close(strengths("mean", SPECTRUM), (2.5, 2.5, 2.5, 2.5))


@pytest.mark.parametrize("name", ["floor", "mean"])
def test_directions_of_pure_rounding_are_not_lifted(name):
    low = (random(1, 40, 4)[0] @ random(1, 4, 30, seed=1)[0]).float()
    settings = {"beta": 0.0} if name == "floor" else {}
    found = svd(after(name, low, Factors(low[None]), **settings)).s
    assert int((found > found[0] / 2).sum()) == 4
    assert found[4:].max() < 1e-4 * found[0]


class TestRows:
    first, second = tensor([[3.0, 4.0], [1.0, 0.0]]), tensor([[4.0, -3.0], [0.0, 1.0]])

    def test_the_worked_example(self):
        mean = tensor([[3.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        close(after("rows", mean, [self.first, self.second]), [[4.94975, 0.70711], [0.70711, 0.70711]], atol=1e-5)
        close(after("rows", mean, [self.first, self.second], p=1.0), [[6.125, 0.875], [0.5, 0.5]])

    def test_limit_only_up_and_zero_rows(self):
        experts = [diag(8, 1)] * 2
        close(after("rows", diag(1, 2), experts), diag(3, 2))
        close(after("rows", diag(1, 2), experts, limit=10.0, only_up=False), diag(8, 1))
        close(after("rows", diag(0, 2), experts), diag(0, 2))

    def test_duplicates(self):
        delta = random(1, 7, 5)[0]
        close(after("rows", delta, [delta, delta]), delta)
        close(after("rows", 2 * delta, [delta, delta], only_up=False), delta)


class TestAim:
    def test_columns_that_the_base_uses_most_are_held_back_most(self):
        row, columns = (
            tensor([[1.0, 1.0, 1.0]]).double(),
            tensor([[[3.0, 3.0, 0.0], [9, 9, 9]], [[5, 1, 0], [9, 9, 9]]]),
        )
        inputs = Inputs(base_columns=lambda: columns)  # the mean sizes are 4, 2 and 0
        close(after("aim", row, [row], inputs=inputs), [[0.4, 0.7, 1.0]], atol=1e-6)
        close(after("aim", row, [row], inputs=inputs, omega=0.0), [[0.0, 0.5, 1.0]], atol=1e-6)
        # the 99th percentile lies at 2 + .98 (4 - 2) = 3.96
        close(after("aim", row, [row], inputs=inputs, robust=True), [[0.4, 1 - 0.6 * 2 / 3.96, 1.0]], atol=1e-6)
        turned = Inputs(base_columns=lambda: columns, transposed=True)
        close(after("aim", row.T, [row.T], inputs=turned), [[0.4], [0.7], [1.0]], atol=1e-6)

    def test_a_matrix_without_inputs_stays(self):
        close(after("aim", SHEAR, [SHEAR], inputs=Inputs(transposed=True)), SHEAR)


class TestGains:
    def test_each_direction_gets_its_best_strength(self):
        """a is 1; b is 2 and 0 of the first expert, 1 and 1 of the second; c is 4 and 2: both divide by 1/4 + 1/2."""
        close(after("gains", diag(3, 1), [diag(2, 0), I2]), diag(4 / 3, 2 / 3))
        close(after("gains", diag(3, 1), [diag(2, 0), I2], share=0.5), diag(13 / 6, 5 / 6))

    def test_directions_that_nobody_reads_stay(self):
        inputs = Inputs(lambda _: diag(1, 0))
        close(after("gains", diag(3, 1), [diag(2, 0), I2], inputs=inputs), diag((2 / 4 + 1) / (1 / 4 + 1), 1))
        close(after("gains", diag(3, 1), [diag(2, 0), I2], inputs=Inputs(transposed=True)), diag(3, 1))

    def test_no_other_strengths_keep_more(self):
        deltas, x = random(2, 7, 5), random(2, 40, 5, seed=1)
        grams, merged = x.mT @ x, deltas.sum(0)
        inputs = Inputs(grams.__getitem__)
        best = svd(after("gains", merged, list(deltas), inputs=inputs))

        def kept(matrix):
            return sum(kept_by(matrix, deltas, inputs))

        whole = kept((best.u * best.s) @ best.v.T)
        for r in range(5):
            for step in (0.9, 1.1):
                s = best.s.clone()
                s[r] *= step
                assert kept((best.u * s) @ best.v.T) < whole


@pytest.mark.parametrize("name", [name for name in SHAPERS if name != "star"])
class TestEveryShaper:
    def test_scaling_everything_scales_the_result(self, name):
        deltas = random(3, 7, 5)
        whole = after(name, deltas.sum(0), list(deltas))
        close(after(name, 3 * deltas.sum(0), [3 * d for d in deltas]), 3 * whole)

    def test_a_fold_gives_what_its_matrix_gives(self, name):
        deltas = random(3, 7, 5)
        found = svd(deltas.sum(0))
        signs = tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
        fold = Fold(found.u.flip(1), (found.s * signs).flip(0), (found.v * signs).flip(1))
        close(after(name, fold, list(deltas)), after(name, deltas.sum(0), list(deltas)))

    @pytest.mark.parametrize("shape", [(9, 7), (7, 9)])
    def test_adapters_give_what_their_matrices_give(self, name, shape):
        pairs = tuple((random(1, shape[0], r, r)[0], random(1, r, shape[1], r + 9)[0]) for r in (2, 2, 3))
        deltas = torch.stack([b @ a for b, a in pairs])
        close(after(name, deltas.sum(0), Factors(deltas, low=pairs)), after(name, deltas.sum(0), list(deltas)), 1e-10)

    def test_odd_experts_are_finite(self, name):
        deltas = random(3, 7, 5)
        deltas[1], deltas[0, 2] = 0, 0
        for stack in (deltas, deltas * 0, deltas[:1]):
            assert torch.isfinite(after(name, stack.sum(0), list(stack))).all()


@pytest.mark.parametrize("name", ["svc", "rows"])
def test_one_sided_shapers_are_not_the_same_on_the_transpose(name):
    deltas = random(3, 6, 6)
    whole = after(name, deltas.sum(0), list(deltas), **({"only_up": False} if name == "rows" else {}))
    other = after(name, deltas.sum(0).T, [d.T for d in deltas], **({"only_up": False} if name == "rows" else {}))
    assert (other.T - whole).norm() > 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shaped")
    make_family(path, 2, layers=1, dtype=torch.float32)
    return path


def recipe(folder, parameters, method="task_arithmetic"):
    return parse_recipe(
        f"merge_method: {method}\nbase_model: base\nmodels: [{{model: helpful}}, {{model: honest}}]\n"
        f"parameters: {parameters}", folder
    )  # fmt: skip


def merged(folder, parameters, method="task_arithmetic"):
    plan = make_plan(recipe(folder, parameters, method))
    return {name: value - plan.base.read(name).float() for name, value in merged_tensors(plan)}


class TestInARecipe:
    Q = "model.layers.0.self_attn.q_proj.weight"

    def test_the_scale_comes_after_the_shaper(self, folder):
        full, half = (merged(folder, f"{{lambda: {scale}, shaper: svc}}") for scale in (1.0, 0.5))
        plain = merged(folder, "{lambda: 1.0}")
        assert (full[self.Q] - plain[self.Q]).norm() > 0.01 * plain[self.Q].norm()
        close(half[self.Q], full[self.Q] / 2, atol=1e-6)
        close(full["model.norm.weight"], plain["model.norm.weight"], atol=1e-6)

    def test_star_acts_on_each_expert_before_the_merge(self, folder):
        plan = make_plan(recipe(folder, "{shaper: star, star_eta: 1}"))
        base = plan.base.read(self.Q)
        parts = [svd((e.read(self.Q) - base).double()) for e in plan.experts]
        expected = sum(part.s.sum() * torch.outer(part.u[:, 0], part.v[:, 0]) for part in parts)
        close(dict(merged_tensors(plan))[self.Q] - base, expected.float(), atol=1e-4)

    def test_star_keeps_adapters_factored(self):
        pairs = tuple((random(1, 9, r, r)[0], random(1, r, 7, r + 9)[0]) for r in (2, 3))
        deltas = torch.stack([b @ a for b, a in pairs])
        chosen = defaults(shaper="star")
        cut, dense = (enter(given, chosen).factors for given in (Factors(deltas, low=pairs), Factors(deltas)))
        close(cut.deltas, dense.deltas)
        assert cut.only_adapters
        assert [int((svd(delta).s > 1e-9).sum()) for delta in cut.deltas] == [1, 1]

    def test_filters_choose_the_matrices(self, folder):
        chosen = merged(folder, "{shaper: [{filter: q_proj, value: mean}, {value: none}]}")
        plain = merged(folder, "{}")
        assert [name for name in plain if not torch.allclose(plain[name], chosen[name], atol=1e-6)] == [self.Q]

    def test_excluded_matrices_take_the_plain_mean(self, folder):
        chosen = merged(folder, '{shaper: mean, exclude: ["*q_proj*"]}', "tsv_m")
        plain = merged(folder, '{exclude: ["*q_proj*"]}', "tsv_m")
        close(chosen[self.Q], plain[self.Q], atol=0.0)
        assert not torch.allclose(chosen["lm_head.weight"], plain["lm_head.weight"], atol=1e-4)

    def test_mistakes_are_named(self, folder):
        checked = check(recipe(folder, "{shaper: svcc, star_etaa: 2, floor_beta: 3, lambda: 1}"))
        text = " ".join(str(problem) for problem in checked.problems)
        assert "`star_eta`" in text
        assert "svcc" in text
        assert "3 lies outside 0 to 1" in text

    def test_one_that_is_calibrated_needs_a_calibration(self, folder):
        with pytest.raises(UserError, match=r"`aim` needs to know .* python -m eval calibrate"):
            make_plan(recipe(folder, "{shaper: aim}", "ties"))
        make_plan(recipe(folder, "{shaper: aim}", "linear"))  # where it has no effect

    def test_it_has_no_effect_on_models_themselves(self, folder):
        checked = check(recipe(folder, "{shaper: svc, space: core}", "linear"))
        assert not checked.problems
        assert sum("has no effect" in notice for notice in checked.notices) == 2


def test_the_digest_names_the_versions_of_the_shapers_in_use(pico_family, monkeypatch):
    def digests():
        text = "merge_method: ties\nbase_model: base\nmodels: [{model: helpful}]\n"
        texts = (text, text + "parameters: {shaper: svc}\n", text + "parameters: {shaper: cap}\n")
        return [make_plan(parse_recipe(text, pico_family["base"].parent)).digest for text in texts]

    before = digests()
    monkeypatch.setattr("merging.plan.SHAPERS", {**SHAPERS, "svc": replace(SHAPERS["svc"], version=2)})
    assert [a == b for a, b in zip(before, digests(), strict=True)] == [True, False, True]


def test_the_page_on_recipes_names_every_shaper_and_space():
    from pathlib import Path

    from merging.spaces import SPACES

    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name in (*SHAPERS, *(f"space: {space}" for space in SPACES if space != "full")):
        assert f"`{name}`" in text
