"""Problems on the page: each fix a button, and nothing from a model is markup."""

import html
import json
import re

import gradio as gr

from merging.errors import Fix, UserError
from ui.problem import problem_html, problem_place, shows_problems


def test_a_problem_with_two_ways_out_has_two_buttons():
    other = Fix("Keep the base's", "set", ("tokenizer_source",), "base")
    fix = Fix("Keep every token", "set", ("tokenizer_source",), "union", other)
    shown = problem_html(UserError("E_VOCABULARY", "<b>they</b> differ.", fix=fix))
    sent = [json.loads(html.unescape(text)) for text in re.findall('data-fix="([^"]*)"', shown)]
    assert [(one["label"], one["value"], one["instead"]) for one in sent] == [
        ("Keep every token", "union", None), ("Keep the base's", "base", None),
    ]  # fmt: skip
    assert "<b>they" not in shown


def test_what_must_be_done_first_is_not_called_a_failure():
    first = problem_html(UserError("E_CALIBRATION", "It is not measured yet.", do="Press Measure the experts."))
    failed = problem_html(UserError("E_NO_MODEL", "There is no folder here."))
    assert "One step first." in first
    assert "did not work" not in first
    assert "This did not work." in failed


def test_a_run_that_finds_nothing_to_do_leaves_the_problem_before_it():
    place = problem_place()

    @shows_problems(place)
    def pick(what: str):
        if what == "wrong":
            raise UserError("E_NO_MODEL", "There is no folder here.")
        yield from ()

    (shown,) = pick("wrong")
    assert "There is no folder here." in shown[place]["value"]
    assert list(pick("left unchanged")) == [{place: gr.skip()}]


def test_a_run_that_brings_something_takes_the_problem_away_once():
    place, line = problem_place(), gr.HTML()

    @shows_problems(place)
    def move():
        yield {line: "one"}
        yield {line: "two"}

    first, second = move()
    assert first == {place: gr.update(value="", visible=False), line: "one"}
    assert second == {line: "two"}


def test_what_a_control_says_is_never_the_last_word_of_a_run():
    place, line, box = problem_place(), gr.HTML(), gr.Textbox()

    @shows_problems(place, clears=False, typed={box})
    def change(last: str):
        yield {box: "one"}
        if last == "line":
            yield {line: "two"}

    assert list(change("box")) == [{box: "one"}, {place: gr.skip()}]
    assert list(change("line")) == [{box: "one"}, {line: "two"}]
