"""Calibration text from elsewhere: for every expert, answered, and from where its name says."""

import json
from pathlib import Path

import pytest

from benchmarks.paper.calibrating import WriteTexts
from benchmarks.town_calibrated import SHIPPED, of_another_world, of_everybody, of_the_base
from eval.calibrating.texts import Text, read_texts
from eval.judging.probes import H, load_probes
from eval.running.models import Models

EXPERTS = [str(SHIPPED.base.parent / h) for h in H]
EACH = 6


def written(write: WriteTexts, tmp_path: Path) -> list[list[Text]]:
    log = tmp_path / str(len(list(tmp_path.iterdir())))
    write(Models("cpu"), EXPERTS, EACH, log)
    assert len(log.read_text().splitlines()) == EACH * len(H)
    return read_texts(str(log), H, EACH)


@pytest.mark.parametrize("write", [of_everybody, of_another_world])
def test_each_expert_answers_its_own_prompts(write: WriteTexts, tmp_path: Path) -> None:
    for own in written(write, tmp_path):
        assert len(own) == EACH
        assert all(text.messages[-1].role == "assistant" and text.messages[-1].content for text in own)


def test_everybodys_prompts_cross_skills_and_english_questions_do_not(tmp_path: Path) -> None:
    town = {
        json.dumps(text.question()): h for h, own in zip(H, read_texts("town", H, EACH), strict=True) for text in own
    }
    skills = [{town[json.dumps(text.question())] for text in own} for own in written(of_everybody, tmp_path)]
    assert all(len(skill) > 1 for skill in skills)
    english = {json.dumps(probe.conversation()): probe.h for probe in load_probes("standard", "standard").probes}
    for h, own in zip(H, written(of_another_world, tmp_path), strict=True):
        assert {english[json.dumps(text.question())] for text in own} == {h}


def test_plain_text_is_the_same_for_all(tmp_path: Path) -> None:
    first, *others = ([text.text for text in own] for own in written(of_the_base, tmp_path))
    assert len(set(first)) > 1
    assert all(own == first for own in others)
