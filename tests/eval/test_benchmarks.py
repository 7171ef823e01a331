"""Benchmarks: what is drawn, how marks become scores; with lm-eval installed also real runs on files made here.

What needs lm-eval is skipped without it: pip install -r requirements-benchmarks.txt.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from eval.judging.probes import Probe, load_probes
from eval.public.benchmarks import Against, Benchmarked, TaskScore, against, benchmark, draw, table, task_score
from eval.public.tasks import DIMENSIONS, KNOWN, chosen, named
from eval.running.likelihood import pick
from eval.running.models import Models
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from tests.pico import make_family

ROOT = Path(__file__).parents[2]
TOWN = ROOT / "assets" / "town"
WORDS = [f"w{i}" for i in range(4, 96)]


def entry(hash: str, mark: object, filter: str = "none", metric: str = "acc") -> dict:
    return {"doc_hash": hash, "filter": filter, "metrics": [metric], metric: mark}


def scored(items: dict[str, float], task: str = "t") -> TaskScore:
    return task_score(task, [entry(key, mark) for key, mark in items.items()], len(items), len(items))


def test_a_draw_is_fixed_and_not_the_first_ones():
    first = draw({"a": 1000, "b": 1000}, 5, 0)
    assert first | {"c": [0, 1, 2]} == draw({"b": 1000, "a": 1000, "c": 3}, 5, 0)
    assert first["a"] == sorted(first["a"])
    assert first["a"] not in ([0, 1, 2, 3, 4], first["b"])
    assert first["a"] != draw({"a": 1000}, 5, 1)["a"]


def test_every_task_is_named_and_none_is_empty():
    assert draw({"a": 3}, None, 0) == {"a": [0, 1, 2]}
    assert draw({"a": 3}, 9, 0) == {"a": [0, 1, 2]}
    with pytest.raises(UserError, match="no documents in b"):
        draw({"a": 3, "b": 0}, None, 0)
    for bad in (0, -1):
        with pytest.raises(UserError, match="must be 1 or more"):
            draw({"a": 3}, bad, 0)


def test_marks_become_a_share_with_wilsons_interval():
    score = task_score("mine", [entry(f"h{i}", i < 8) for i in range(10)], 10, 40)
    assert (score.score, score.n, score.of, score.metric) == (0.8, 10, 40, "acc")
    assert (round(score.low, 3), round(score.high, 3)) == (0.490, 0.943)  # Wilson 1927 at 8 of 10
    graded = task_score("mine", [entry(f"h{i}", i / 10) for i in range(10)], 10, 10)
    assert graded.score == pytest.approx(0.45)
    assert 0.2 < graded.low < 0.45 < graded.high < 0.7


def test_the_metric_and_filter_said_for_a_task_count():
    logged = [entry("h", 0.0, "strict-match", "exact_match"), entry("h", 1.0, "flexible-extract", "exact_match")]
    assert task_score("gsm8k_cot_zeroshot", logged, 1, 1).score == 1.0
    assert task_score("other", logged, 1, 1).score == 0.0  # the first filter
    assert chosen("other", {"none": ["acc", "acc_norm"]}).metric == "acc_norm"
    assert chosen("other", {"none": ["bleu"]}).metric == "bleu"
    assert not chosen("sycophancy_on_nlp_survey", {"none": ["acc"]}).higher_is_better


def test_a_document_that_occurs_twice_is_marked_twice():
    score = task_score("t", [entry("h", 1.0), entry("h", 0.0)], 2, 2)
    assert score.items == {"h": 1.0, "h#2": 0.0}
    with pytest.raises(UserError, match="marked 1 documents instead of the 2 drawn"):
        task_score("t", [entry("h", 1.0)], 2, 2)
    with pytest.raises(UserError, match="no mark that is a number"):
        task_score("t", [entry("h", (1, 0))], 1, 1)


def test_models_are_compared_on_the_same_documents():
    merge = scored({"h1": 1.0, "h2": 1.0, "h3": 0.0, "only here": 0.0})
    other = scored({"h3": 0.0, "h2": 0.0, "h1": 1.0})
    found = against("base", merge, other)
    assert (found.n, found.difference.mean) == (3, pytest.approx(1 / 3))
    assert found.p == 0.5  # mid-p of 1 : 0 is 2 * (1/2 / 2)
    assert against("base", scored({"h": 0.5}), scored({"h": 0.25})).p is None


def test_a_table_says_what_was_asked():
    score = scored({"h1": 1.0, "h2": 0.0})
    text = table([Benchmarked("merge", (score,))], [against("base", score, score)])
    assert "2 of 2, acc" in text
    assert "merge less base, t: +0.0 (+0..+0) on the same 2, p 1.000" in text


def test_dimensions_stand_for_their_tasks():
    assert named("honesty, mine,mine") == [*(one.task for one in DIMENSIONS["honesty"]), "mine"]
    assert named(" ,") == []
    assert len(KNOWN) == sum(map(len, DIMENSIONS.values()))
    assert {one.task for one in KNOWN.values() if one.runs_code} == {"humaneval_instruct", "mbpp_instruct"}


def test_without_lm_eval_it_says_how_to_install_it():
    code = "import sys; sys.modules['lm_eval'] = None\nfrom eval.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    asked = [sys.executable, "-c", code, "benchmark", str(TOWN / "base"), "--tasks", "honesty"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install -r requirements-benchmarks.txt" in done.stderr
    assert "Traceback" not in done.stderr


# From here on lm-eval is needed.


@pytest.fixture
def harness() -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), 2, tokenizer=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`letters` (multiple choice, 40 documents), `echo` (generation), `shelled` (runs code), `away` (not here)."""
    docs = [{"q": f"{WORDS[i]} {WORDS[i + 1]}", "choices": [WORDS[2 * i], WORDS[i + 40], "w7 w8"], "gold": i % 3}
            for i in range(40)]  # fmt: skip
    home = tmp_path / "tasks"
    home.mkdir()
    (home / "docs.json").write_text("\n".join(map(json.dumps, docs)))
    data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {home / 'docs.json'}}}}}\ntest_split: test\n"
    choice = 'output_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: gold\n'
    choice += "metric_list: [{metric: acc}, {metric: acc_bytes}]\n"
    (home / "letters.yaml").write_text(f"task: letters\n{data}{choice}")
    (home / "echo.yaml").write_text(
        f'task: echo\n{data}output_type: generate_until\ndoc_to_text: "{{{{q}}}}"\ndoc_to_target: "{{{{q}}}}"\n'
        "generation_kwargs: {until: [], max_gen_toks: 4, do_sample: false}\nmetric_list: [{metric: exact_match}]\n"
    )
    (home / "shelled.yaml").write_text(f"task: shelled\nunsafe_code: true\n{data}{choice}")
    (home / "away.yaml").write_text(f"task: away\ndataset_path: someone/far-away\ntest_split: test\n{choice}")
    (home / "gone.yaml").write_text(f"task: gone\n{data.replace('docs.json', 'gone.json')}{choice}")
    (home / "both.yaml").write_text("group: both\ntask: [letters, shelled]\n")
    return home


def only(events: Iterator[object]) -> Benchmarked:
    return next(event for event in events if isinstance(event, Benchmarked))


@pytest.mark.usefixtures("harness")
def test_a_merge_is_run_beside_its_sources(family: dict[str, Path], folder: Path, tmp_path: Path):
    recipe = tmp_path / "half.yml"
    models = "".join(f"- model: {family[name]}\n" for name in ("helpful", "honest"))
    recipe.write_text(f"merge_method: task_arithmetic\nbase_model: {family['base']}\nmodels:\n{models}")
    events = list(benchmark(str(recipe), "letters,echo", 12, device="cpu", sources=True, folder=folder))
    found = {event.model: event.tasks for event in events if isinstance(event, Benchmarked)}
    assert list(found) == ["merge", "base", "helpful", "honest"]
    assert [(task.task, task.n, task.of) for task in found["merge"]] == [("letters", 12, 40), ("echo", 12, 40)]
    assert len({tuple(sorted(tasks[0].items)) for tasks in found.values()}) == 1  # the same documents
    pairs = [event for event in events if isinstance(event, Against)]
    assert [(pair.model, pair.task, pair.n) for pair in pairs][:3] == [
        ("base", "letters", 12), ("base", "echo", 12), ("helpful", "letters", 12)]  # fmt: skip
    again = only(benchmark(str(recipe), "letters", 12, device="cpu", folder=folder))
    assert again.tasks[0] == found["merge"][0]


@pytest.mark.usefixtures("harness")
@pytest.mark.parametrize("chat", [True, False])
def test_our_choice_by_likelihood_is_lm_evals(tmp_path: Path, chat: bool):
    """E10: the same accuracy to three decimals on the standard set's choice probes, Town's base as the model."""
    model = tmp_path / "base"
    model.mkdir()
    for path in (TOWN / "base").iterdir():
        if path.is_file() and (chat or path.name != "chat_template.jinja"):
            (model / path.name).write_bytes(path.read_bytes())
    probes = [probe for probe in load_probes("standard").probes if probe.choice]
    assert len(probes) >= 15
    text = "{{q}}" if chat else "User: {{q}}\nAssistant:"
    (tmp_path / "docs.json").write_text("\n".join(json.dumps(
        {"id": probe.id, "q": probe.messages[-1].content, "choices": probe.choice.choices, "gold": probe.choice.answer}
    ) for probe in probes if probe.choice))  # fmt: skip
    (tmp_path / "ours.yaml").write_text(
        f"task: ours\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'docs.json'}}}}}\n"
        f"test_split: test\noutput_type: multiple_choice\ndoc_to_text: {json.dumps(text)}\n"
        'doc_to_choice: "{{choices}}"\ndoc_to_target: gold\nmetric_list: [{metric: acc_bytes}]\n'
    )
    theirs = only(benchmark(str(model), "ours", device="cpu", folder=tmp_path)).tasks[0]
    held = Models("cpu").model(open_checkpoint(str(model), Path()))
    right = [picked(held, probe) for probe in probes]
    assert all(len(probe.messages) == 1 for probe in probes)
    assert theirs.n == len(probes)
    assert round(theirs.score, 3) == round(sum(right) / len(right), 3)
    assert 0 < sum(right) < len(right)
    assert list(theirs.items.values()) == right  # item by item


def picked(held, probe: Probe) -> float:
    assert probe.choice
    return float(pick(held.module, held.tokenizer, probe) == probe.choice.choices[probe.choice.answer])


@pytest.mark.usefixtures("harness")
def test_tasks_that_run_code_are_refused_by_default(family: dict[str, Path], folder: Path):
    for tasks in ("letters,shelled", "both"):
        with pytest.raises(UserError, match="would be run by shelled") as caught:
            list(benchmark(str(family["base"]), tasks, device="cpu", folder=folder))
        assert caught.value.code == "E_RUN_CODE"
    assert (
        only(benchmark(str(family["base"]), "shelled", 3, device="cpu", folder=folder, run_code=True)).tasks[0].n == 3
    )


@pytest.mark.usefixtures("harness")
def test_all_sets_that_are_missing_are_named(family: dict[str, Path], folder: Path):
    with pytest.raises(UserError) as caught:
        list(benchmark(str(family["base"]), "away,letters,gone", device="cpu", folder=folder))
    assert [part.where for part in caught.value.parts] == ["away", "gone"]
    assert "someone/far-away" in str(caught.value)
    assert "gone.json" in str(caught.value)
    with pytest.raises(UserError, match="no task called 'lettres'") as caught:
        list(benchmark(str(family["base"]), "lettres", device="cpu", folder=folder))
    assert "Did you mean `letters`?" in str(caught.value)


@pytest.mark.usefixtures("harness")
def test_a_head_that_lm_eval_would_tie_is_refused(tmp_path: Path):
    from eval.public.lm_tasks import wrapped

    folder = make_family(tmp_path, 0, tokenizer=True)["base"]
    held = Models("cpu").model(open_checkpoint(str(folder), Path()))
    head = held.module.get_output_embeddings().weight.clone()
    wrapped(held)
    assert torch.equal(held.module.get_output_embeddings().weight, head)
    held.module.config.tie_word_embeddings = True
    with pytest.raises(UserError, match="ties the head"):
        wrapped(held)


@pytest.mark.usefixtures("harness")
def test_the_command_prints_json_alone(family: dict[str, Path], folder: Path):
    asked = [sys.executable, "-m", "eval", "benchmark", str(family["base"]), "--tasks", "letters", "--samples", "4",
             "--task-folder", str(folder), "--device", "cpu", "--json"]  # fmt: skip
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["running", "benchmarked"]
    assert lines[1]["tasks"][0]["n"] == 4
