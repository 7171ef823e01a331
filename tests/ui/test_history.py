"""The way back to a merge that was scored, on recipes written out by hand."""

from dataclasses import replace
from pathlib import Path

from eval.scoring.board import HScore, Scores
from eval.scoring.tries import Try
from merging.recipe import parse_recipe
from merging.sources import spelled_out
from tests.eval.test_against import probe, told
from ui.history import again, differences, words
from ui.panels.tried import compared_html
from ui.session import Session, recipe_of

TIES = """
merge_method: ties
base_model: base
models:
- {model: a/helpful, parameters: {weight: 1.0, density: 0.2}}
- {model: a/honest, parameters: {weight: 0.5, density: 0.3}}
- {model: a/kind, parameters: {weight: 1.0, density: 0.3}}
parameters: {lambda: 0.8, normalize: true}
locks: [{tensors: ["*embed*"], to: a/honest}]
"""
SLERP = "{merge_method: slerp, base_model: base, models: [{model: base}, {model: a/honest}], parameters: {t: 0.5}}"
SIDE = HScore(0.5, 0.4, 0.6, 30)


def kept(text: str, folder: Path) -> Try:
    recipe = spelled_out(parse_recipe(text, folder)).to_yaml()
    return Try("k", "d", recipe, "2026-01-02T03:04:05Z", Scores(SIDE, SIDE, SIDE, 0.5, 0.5, 0.0, 1.0), {})


def test_a_try_comes_back_spelled_as_on_the_desk(tmp_path: Path):
    session = Session(parse_recipe(TIES.replace("0.8", "0.3"), tmp_path), owner="o")
    assert again(session, kept(TIES, tmp_path).recipe) == parse_recipe(TIES, tmp_path)


def test_experts_that_a_method_does_not_take_stay_on_the_desk(tmp_path: Path):
    session = Session(parse_recipe(TIES, tmp_path), owner="o")
    found = again(session, kept(SLERP, tmp_path).recipe)
    assert [expert.model for expert in found.experts] == ["a/helpful", "a/honest", "a/kind"]
    assert [expert.model for expert in recipe_of(Session(found, owner="o")).experts] == ["a/honest"]


def test_a_try_is_called_by_its_numbers(tmp_path: Path):
    assert words(kept(TIES, tmp_path)) == "TIES, λ 0.8, weights 1 / 0.5 / 1"
    assert words(kept(f"name: Mine\n{TIES}", tmp_path)) == "Mine, λ 0.8, weights 1 / 0.5 / 1"
    assert words(kept(TIES.replace("ties", "of_tomorrow"), tmp_path)) == "of_tomorrow"


def test_a_draw_is_called_by_its_seed_and_comes_back_with_it(tmp_path: Path):
    rolled = TIES.replace("merge_method: ties", "merge_method: m3\nseed: 7").replace("lambda: 0.8", "alpha: 0.5")
    one = kept(rolled, tmp_path)
    assert words(one).startswith("Mixup Model Merge, mixing α 0.5, seed 7")
    assert again(Session(parse_recipe(TIES, tmp_path), owner="o"), one.recipe).seed == 7


def test_two_tries_differ_in_what_their_recipes_say_otherwise(tmp_path: Path):
    one, other = (
        kept(TIES, tmp_path),
        kept(TIES.replace("weight: 0.5", "weight: 0.7").replace("normalize", "int8_mask"), tmp_path),
    )
    assert differences(one, one) == []
    assert differences(one, other) == [
        ("normalize", "True", "–"), ("honest: weight", "0.5", "0.7"), ("int8_mask", "–", "True")
    ]  # fmt: skip
    fewer = differences(one, kept(SLERP, tmp_path))
    assert ("merge_method", "ties", "slerp") in fewer
    assert ("kind", "merged", "–") in fewer


def test_the_first_minus_the_second_is_said_h_by_h(tmp_path: Path):
    asked = [probe(str(i)) for i in range(40)]
    first, second = (replace(kept(TIES, tmp_path), outcomes=told(asked, told_)) for told_ in ("p" * 40, "f" * 40))
    shown = compared_html(first, second, asked)
    assert "+100 (+100 to +100):<br>better" in shown
    assert "−100 (−100 to −100):<br>worse" in compared_html(second, first, asked)
