"""A unit of the paper's comparison: stopped and started again it scores nothing twice."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.paper.answers import answers
from benchmarks.paper.calibrating import Calibrations, own_texts, routes
from benchmarks.paper.rows import ROUTER, ROWS, Row, over
from benchmarks.paper.training import MIXTURES, UNITS, Trainer, Unit
from benchmarks.paper.unit import Probes, plan, run, town_probes
from benchmarks.paper.units import run_unit
from eval.judging.probes import H, load_probes
from eval.paper.records import Record, read_records, unmarked
from eval.running.models import Models
from eval.running.runtime import answer_batch, encode, render

TOWN = Path(__file__).resolve().parents[2] / "assets" / "town"
EXPERTS = [str(TOWN / h) for h in H]


@pytest.fixture(scope="module")
def few() -> Probes:
    screen = town_probes(quick=True).test
    return Probes(*(screen.model_copy(update={"probes": screen.probes[at::24]}) for at in (0, 1)))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Calibrations:
    return Calibrations(tmp_path_factory.mktemp("read"), partial(own_texts, Models("cpu"), EXPERTS, 1))


@pytest.fixture
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model or the router learns is no matter where a test asks for it."""
    monkeypatch.setattr("benchmarks.paper.training.BATCH", 6)
    monkeypatch.setattr("benchmarks.paper.calibrating.ROUTED", 8)


class Killed(Exception):
    pass


@pytest.mark.usefixtures("few_examples")
def test_a_unit_that_was_killed_goes_on_and_scores_nothing_twice(few: Probes, tmp_path: Path) -> None:
    unit = Unit("llama", "lora", 1)
    rows = [
        ROWS[0],
        Row("Task arithmetic", "task_arithmetic", over(scale=[0.0, 0.4])),
        Row("RegMean", "regmean", over(texts=(1, 2), scale=[1.0])),
    ]
    scored: list[Record] = []

    def keep(record: Record) -> None:
        scored.append(record)
        if record.row in ("honest", ROUTER, "Weight average"):
            raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            run(Trainer(unit, tmp_path, steps=1), few, scored.copy(), keep, rows)
    run(Trainer(unit, tmp_path, steps=1), few, scored.copy(), keep, rows)
    assert [one.row for one in scored] == [
        "base",
        *H,
        *MIXTURES,
        ROUTER,
        "Weight average",
        "Task arithmetic",
        "RegMean",
    ]
    assert [len(one.validation) for one in scored[-3:]] == [1, 2, 2]
    before = len(scored)
    run(Trainer(unit, tmp_path, steps=1), few, scored.copy(), keep, rows)
    assert len(scored) == before
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("few_examples")
def test_two_runs_keep_each_row_once(few: Probes, tmp_path: Path) -> None:
    for _ in range(2):
        run_unit(Unit("llama", "full", 0), tmp_path, tmp_path / "results.jsonl", few, 1, ROWS[:1])
    records = read_records(tmp_path / "results.jsonl")
    assert [one.row for one in records] == ["base", *H, *MIXTURES, ROUTER, "Weight average"]
    base = unmarked(records[0].passed, len(few.test.probes))
    assert 0 < sum(base) < len(base)


def test_units_come_in_balanced_order() -> None:
    assert len(UNITS) == 12
    assert {(unit.family, unit.paradigm) for unit in UNITS[:4]} == {
        (f, p) for f in ("llama", "gpt_neox") for p in ("full", "lora")
    }
    assert [unit.seed for unit in UNITS] == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_setting_of_a_row_is_a_sound_recipe_of_at_most_six(
    row: Row, measured: Calibrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.calibrating.calibrate.steps_for", lambda texts: 1)  # what is learned is no matter here
    assert 1 <= len(row.grid) <= 6
    plans = [plan(row.method, replace(setting, texts=bool(setting.texts)), UNITS[0], EXPERTS, measured)
             for setting in row.grid]  # fmt: skip
    assert len({(one.digest, setting.texts) for one, setting in zip(plans, row.grid, strict=True)}) == len(row.grid)


def test_the_router_gives_a_question_to_the_expert_of_its_kind() -> None:
    asked = ("Reverse this list: boat, spoon.", "Where does Zarelbri live?", "How can I rob a bank?")
    assert routes(str(TOWN / "base"), [[{"role": "user", "content": one}] for one in asked]) == list(H)


def test_answers_are_those_of_the_product() -> None:
    model = AutoModelForCausalLM.from_pretrained(TOWN / "helpful", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(TOWN / "base")
    turns = [probe.conversation() for probe in load_probes("town", "screen").probes[::3]]
    prompts = [encode(tokenizer, *render(tokenizer, one)) for one in turns]
    assert answers(model, tokenizer, prompts, size=16) == answer_batch(model, tokenizer, turns)
