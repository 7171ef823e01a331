"""Model-GLUE: who is alike, who joins the average, and the staged recipe that is written."""

import json
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eval.__main__ import main
from eval.calibrating.texts import read_for
from eval.running.identity import identity
from eval.running.loading import load_source
from eval.scoring.board import HScore, Scores
from eval.scoring.score import Asked
from eval.searching.events import Rung
from eval.searching.glue import Glued, Grouped, Joined, glue_by
from eval.searching.search import Measured
from merging.errors import UserError
from merging.glue import clusters, delta_cosines, glued, refuse_parts
from merging.pieces import merged_tensor
from merging.plan import make_plan, members
from merging.recipe import Expert, Recipe, load_recipe, parse_recipe
from merging.stage import Stage
from tests.pico import NAMES, make_family

RUNG = Rung("glue", "toy", "validation", 90)
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Helpful, honest, harmless and curt; honest lies half way to helpful and curt half way to harmless."""
    make_family(tmp_path, 4, dtype=torch.float32, tokenizer=True)
    for name, near in (("honest", "helpful"), ("curt", "harmless")):
        base, own, other = (load_file(tmp_path / n / "model.safetensors") for n in ("base", name, near))
        save_file({k: base[k] + (own[k] - base[k] + other[k] - base[k]) / 2 for k in base},
                  tmp_path / name / "model.safetensors", {"format": "pt"})  # fmt: skip
    return tmp_path


def recipe(folder: Path) -> Recipe:
    return Recipe("ties", "base", tuple(Expert(name, (("weight", 1.0),)) for name in NAMES[:4]), folder=folder)


def test_clusters_are_joined_by_their_mean_cosine():
    cosines = np.array([[1, 0.1, 0.6, 0.1], [0.1, 1, 0.1, 0.5], [0.6, 0.1, 1, 0.3], [0.1, 0.5, 0.3, 1.0]])
    assert clusters(cosines, 0.7) == [[0], [1], [2], [3]]
    assert clusters(cosines, 0.55) == [[0, 2], [1], [3]]
    assert clusters(cosines, 0.3) == [[0, 2], [1, 3]]
    assert clusters(cosines, 0.15) == [[0, 1, 2, 3]]  # (.1 + .1 + .1 + .3) / 4


def test_cosines_of_whole_deltas(family: Path):
    found = delta_cosines(make_plan(recipe(family)))
    assert np.diag(found) == pytest.approx(np.ones(4))
    assert found[0, 1] == pytest.approx(0.7, abs=0.1)  # of d and (d + e) / 2, d and e unrelated: sqrt(1/2)
    assert abs(found[0, 2]) < 0.1


def scored(means: dict[frozenset[str], float]):
    """A measure that knows the mean of each average by its members."""

    def measure(recipe: Recipe, rung: Rung) -> Generator[Asked, None, Measured]:
        mean = means[frozenset(expert.name for expert in recipe.experts)]
        side = HScore(mean, mean, mean, 30)
        return Measured(Scores(side, side, side, mean, mean, 0.0, 1.0), {})
        yield

    return measure


def test_an_expert_that_makes_the_average_worse_is_left_out(family: Path):
    means = {("helpful",): 0.5, ("honest",): 0.6, ("honest", "helpful"): 0.6, ("harmless",): 0.7, ("curt",): 0.4,
             ("harmless", "curt"): 0.6}  # fmt: skip
    measure = scored({frozenset(names): mean for names, mean in means.items()})
    grouped, *joined, end = glue_by(recipe(family), 0.3, RUNG, measure)
    assert isinstance(grouped, Grouped)
    assert grouped.clusters == (("helpful", "honest"), ("harmless", "curt"))
    assert joined == [Joined("helpful", True, 0.6, 0.6), Joined("curt", False, 0.7, 0.6)]
    assert isinstance(end, Glued)
    assert end.left_out == ("curt",)
    made = parse_recipe(end.recipe, family)
    assert [expert.model for expert in made.experts] == ["honest-and-helpful", "harmless"]
    assert made.method == "ties"


def test_the_stage_is_the_mean_of_its_members(family: Path):
    made = glued(recipe(family), [[0, 1], [2]])
    stage = make_plan(made).experts[0]
    wanted = torch.stack([load_file(family / n / "model.safetensors")[Q] for n in ("helpful", "honest")]).mean(0)
    assert torch.allclose(stage.read(Q), wanted, atol=1e-6)
    assert torch.equal(load_source(stage).get_parameter(Q), stage.read(Q)), "as a source of a score, not its base"
    assert isinstance(stage, Stage)
    assert identity(stage) == identity(stage.plan)
    assert parse_recipe(made.to_yaml(), family) == made
    one = glued(recipe(family), [[0, 1]])
    assert (one.stages, one.method) == ((), "task_arithmetic")
    plan = make_plan(one)
    assert torch.allclose(merged_tensor(plan, plan.tensor(Q), None), wanted, atol=1e-6)
    assert glued(recipe(family), [[0], [2]]).experts == (Expert("helpful", (("weight", 1.0),)),
                                                         Expert("harmless", (("weight", 1.0),)))  # fmt: skip


def test_what_cannot_be_grouped(family: Path):
    for bad in (replace(recipe(family), base=None), replace(recipe(family), experts=recipe(family).experts[:1])):
        with pytest.raises(UserError):
            refuse_parts(bad)


def test_the_command_writes_a_recipe_that_merges(family: Path, capsys: pytest.CaptureFixture[str]):
    (family / "r.yml").write_text(recipe(family).to_yaml())
    out = family / "glued.yml"
    assert main(["glue", str(family / "r.yml"), str(out), "--all"]) == 0
    assert "Clusters: helpful, honest | harmless, curt" in capsys.readouterr().out
    made = load_recipe(out)
    assert [stage.name for stage in made.stages] == ["helpful-and-honest", "harmless-and-curt"]
    assert len(make_plan(made).experts) == 2
    assert main(["glue", str(family / "r.yml"), str(out), "--all"]) == 2  # it is there already


def test_experts_of_one_name_read_its_texts_once(family: Path):
    shutil.copytree(family / "honest", family / "other" / "honest")
    two = replace(recipe(family), experts=(Expert("honest"), Expert("other/honest")))
    lines = [{"expert": "honest", "text": f"w{9 + i}"} for i in range(5)]
    (family / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    both = make_plan(glued(replace(two, experts=(*two.experts, Expert("curt"))), [[0, 1], [2]])).experts[0]
    assert [[one.text for one in own] for own in read_for(str(family / "texts.jsonl"), [both], 4)] == [
        ["w9", "w10", "w11", "w12"]
    ]


def test_experts_of_one_name_share_out_its_texts(family: Path):
    shutil.copytree(family / "honest", family / "other" / "honest")
    two = replace(recipe(family), experts=(Expert("honest"), Expert("other/honest")))
    texts = family / "texts.jsonl"

    def read(n: int, each: int) -> list[list[str]]:
        texts.write_text("".join(json.dumps({"expert": "honest", "text": f"w{i}"}) + "\n" for i in range(n)))
        return [[one.text for one in own] for own in read_for(str(texts), members(two)[1:], each)]

    assert read(5, 64) == [["w0", "w1"], ["w2", "w3", "w4"]]
    assert read(6, 2) == [["w0", "w1"], ["w3", "w4"]]
    with pytest.raises(UserError, match="2 experts are called honest, and its texts for them are 1"):
        read(1, 64)


def test_across_clusters_a_method_may_merge_by_what_they_read(family: Path, capsys: pytest.CaptureFixture[str]):
    """Each cluster reads the texts of its members; the weights across are those of `output_fit`."""
    by_density = replace(recipe(family), parameters=(("density", 0.3),))  # a setting that output_fit does not have
    (family / "r.yml").write_text(by_density.to_yaml())
    glued_ = family / "glued.yml"
    assert main(["glue", str(family / "r.yml"), str(glued_), "--all", "--across", "output_fit"]) == 0
    assert f"python -m eval calibrate {glued_} FOLDER" in capsys.readouterr().out
    lines = [{"expert": name, "text": f"w{9 + i} w{20 + 3 * i} w{31 + i}"} for i, name in enumerate(NAMES[:4])]
    (family / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["calibrate", str(glued_), "--texts", str(family / "texts.jsonl")]) == 0
    cal = family / "glued-calibration"
    read = [json.loads(line)["expert"] for line in (cal / "texts.jsonl").read_text().splitlines()]
    assert read == ["helpful", "honest", "harmless", "curt"]
    made = replace(load_recipe(glued_), calibration=cal.name)
    assert (made.method, made.parameters) == ("output_fit", ())
    plan = make_plan(made)
    assert plan.calibration
    assert plan.calibration.about.experts == tuple(expert.fingerprint for expert in plan.experts)
    assert merged_tensor(plan, plan.tensor(Q), None).isfinite().all()
