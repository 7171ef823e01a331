"""What the page takes from a long job's log."""

import json
from dataclasses import asdict
from pathlib import Path

import gradio as gr
import pytest

from eval.judging.probes import Exam
from merging.errors import UserError
from ui.desk import first_recipe
from ui.jobs import Jobs, LiveWorker
from ui.layout import lay_out
from ui.long import watch
from ui.services import Services, _presets
from ui.session import Session

ROOT = Path(__file__).resolve().parents[2]
H = {"score": 0.5, "low": 0.4, "high": 0.6, "n": 10}
SCORED = {
    "event": "scored", "model": "merge", "answers": [],
    "scores": {"helpful": H, "honest": H, "harmless": H, "mean": 0.5, "min": 0.5, "broken": 0.0, "well_formed": 1.0},
}  # fmt: skip


@pytest.mark.parametrize(("exam", "boards"), [(Exam("quick"), [("d", Exam("quick"))]), (None, [])])
def test_scores_are_kept_under_the_exam_they_are_of_and_not_without_one(tmp_path: Path, exam, boards):
    services = Services(ROOT, tmp_path, LiveWorker(), Jobs(tmp_path / "jobs"), _presets(), ROOT / "assets" / "town")
    with gr.Blocks():
        page = lay_out(services, {})
    about = {"digest": "d"} | ({"exam": asdict(exam)} if exam else {})
    job = services.jobs.start(services.jobs.new_id(), "o", "score", json.dumps(about), [])
    (services.jobs.folder(job.id) / "log.jsonl").write_text(json.dumps(SCORED) + "\n")
    list(watch(services, page, Session(first_recipe(services), "s"), (), job))
    assert list(services.boards) == boards


def test_a_job_that_fails_takes_its_stop_button_with_it(tmp_path: Path):
    services = Services(ROOT, tmp_path, LiveWorker(), Jobs(tmp_path / "jobs"), _presets(), ROOT / "assets" / "town")
    with gr.Blocks():
        page = lay_out(services, {})
    job = services.jobs.start(services.jobs.new_id(), "o", "save", "{}", [])
    failed = {"event": "error", **UserError("E_DISK", "The disk is full.").to_dict()}
    (services.jobs.folder(job.id) / "log.jsonl").write_text(json.dumps(failed) + "\n")
    said = watch(services, page, Session(first_recipe(services), "s"), (), job)
    assert next(said)[page.status.stop]["visible"]
    assert not next(said)[page.status.stop]["visible"]
    with pytest.raises(UserError, match="The disk is full"):
        next(said)
