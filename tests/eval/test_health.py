"""The health check: on numbers by hand, and on pico models that are the same, changed, or destroyed."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from eval.answering import Answering
from eval.judging.probes import Exam, Probe
from eval.scoring.health import Health, chosen
from eval.worker import Examine, Sources
from merging.recipe import parse_recipe
from tests.eval.test_against import probe
from tests.pico import make_family


def healthy(perplexity: dict[str, float], broken: int = 0) -> Health:
    margins = {"merge": (3.0, 1.0, 5.0), "base": (1.0, 1.0, 1.0)}
    return Health({}, perplexity, margins, ("helpful", "helpful", "honest"), ("a", "b", "c"), broken, 12)


def test_alarms_are_for_three_times_the_best_sources_surprise_and_for_broken_answers():
    assert healthy({"merge": 5.9, "base": 9.0, "helpful": 2.0}).alarms == []
    assert "3 times as surprising" in healthy({"merge": 6.1, "base": 9.0, "helpful": 2.0}).alarms[0]
    assert len(healthy({"merge": math.nan, "base": 2.0}).alarms) == 1
    assert healthy({"merge": 2.0, "base": 2.0}, broken=2).alarms == ["2 of 12 of its answers are broken."]


def test_margins_are_means_and_differences_are_paired():
    found = healthy({"merge": 1.0, "base": 1.0})
    assert found.margin("helpful", "merge") == 2.0
    assert found.ahead("helpful", "base").mean == 1.0
    assert found.likelier("helpful", "merge") == (2, 2)
    assert replace(found, margins={"merge": (3.0, -1.0, 5.0)}).likelier("helpful", "merge") == (1, 2)
    assert (found.ahead("honest", "base").low, found.ahead("honest", "base").high) == (4.0, 4.0)


def test_probes_are_chosen_evenly_over_the_categories():
    def kind(category: str, i: int) -> Probe:
        return probe(f"{category}{i}", "honest", category).model_copy(update={"gold_pass": ("y",), "gold_fail": ("n",)})

    listed = [*(kind("x", i) for i in range(3)), *(kind("y", i) for i in range(3)), probe("no golds", "honest")]
    assert [one.id for one in chosen(listed, 4)] == ["x0", "y0", "x1", "y1"]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), 2, tokenizer=True)


def examined(family: dict[str, Path], scale: float, weights: tuple[float, float]) -> Health:
    models = "".join(
        f"- {{model: {family[name]}, parameters: {{weight: {weight}}}}}\n"
        for name, weight in zip(("helpful", "honest"), weights, strict=True)
    )
    head = f"merge_method: task_arithmetic\nbase_model: {family['base']}\nparameters: {{lambda: {scale}}}\n"
    text = f"{head}models:\n{models}"
    sources = Sources(str(family["base"]), (str(family["helpful"]), str(family["honest"])), ("helpful", "honest"))
    examine = Examine("s", sources, parse_recipe(text, Path()), Exam("town", "validation"))
    (found,) = Answering().answer(examine, lambda: False)
    assert isinstance(found, Health)
    return found


def test_a_merge_that_is_one_expert_is_as_near_to_it_as_can_be(family: dict[str, Path]):
    found = examined(family, 1.0, (1.0, 0.0))
    assert list(found.perplexity) == ["merge", "base", "helpful", "honest"]
    assert found.near["helpful"].agreement == 1.0
    assert found.near["helpful"].forward_p95 < 1e-5 < found.near["base"].forward
    assert found.perplexity["merge"] == pytest.approx(found.perplexity["helpful"], rel=1e-4)
    assert found.margins["merge"] == pytest.approx(found.margins["helpful"], abs=1e-3)
    assert (len(found.margins["base"]), found.spoken) == (30, 12)


def test_a_destroyed_merge_is_told_by_its_surprise(family: dict[str, Path]):
    assert any("surprising" in alarm for alarm in examined(family, 300.0, (1.0, 1.0)).alarms)
