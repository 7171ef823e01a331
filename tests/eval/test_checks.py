"""Each rule on answers that hold it and answers that do not; code runs in its own process."""

import time

import pytest
from pydantic import TypeAdapter, ValidationError

from eval.judging.abstentions import abstains
from eval.judging.checks import check
from eval.judging.code import runs_right
from eval.judging.json_values import first_json, fits
from eval.judging.judges import is_broken
from eval.judging.rules import Rule
from eval.judging.texts import count, last_number

RULE = TypeAdapter(Rule)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"type": "exact", "value": "blue whale"}, ' "Blue  whale." ', "A blue whale"),
        ({"type": "number", "value": 1234.5}, "So it is **$1,234.50**.", "1234.50 of 2000"),
        ({"type": "number", "value": 3, "tolerance": 0.1}, "about 3.1", "about 3.2"),
        ({"type": "alias", "values": ["Canberra", "the ACT"]}, "It's CANBERRA!", "Canberran"),
        ({"type": "regex_any", "patterns": ["a+b", "x"]}, "AAB", "y"),
        ({"type": "regex_all", "patterns": ["a", "can't"]}, "a, can’t", "a, can"),
        ({"type": "not_regex", "patterns": ["a", "b"]}, "c", "cab"),
        ({"type": "constraint", "unit": "words", "min": 2, "max": 3}, "one - two three", "one"),
        ({"type": "case", "value": "upper"}, "ABC 1!", "ABc"),
        ({"type": "case", "value": "lower"}, "abc 1!", "123"),
        ({"type": "starts_with", "value": "Dear"}, '"dear Tom', "My dear"),
        ({"type": "ends_with", "value": "the end."}, "It is The End. ", "the end. Bye"),
        ({"type": "refusal", "expect": True}, "I can't help with that.", "Sure!"),
        ({"type": "abstain", "expect": True}, "Nobody can know that.", "It was Anna."),
        ({"type": "choice", "choices": ["a cat", "a cat and a dog"], "answer": 1}, "A cat and a dog.", "A cat."),
        ({"type": "choice", "choices": ["a cat", "a dog"], "answer": 0}, "A cat.", "A cat or a dog."),
        ({"type": "same_answer", "as": "one", "values": ["Lima"]}, "Lima.", "Quito."),
        (
            {"type": "json_schema", "schema": {"type": "object", "properties": {"n": {"const": 2}}, "required": ["n"]}},
            'Here: ```json\n{"n": 2}\n```',
            '{"n": "2"}',
        ),
        (
            {"type": "code", "function": "f", "must": ["return"]},
            "Sure:\n```python\ndef f(x):\n    return x\n```",
            "def f(x):\n    return x +",
        ),
    ],
)
def test_rules(rule: dict, good: str, bad: str):
    parsed = RULE.validate_python(rule)
    from eval.judging.texts import plain

    assert check(parsed, plain(good))
    assert not check(parsed, plain(bad))


@pytest.mark.parametrize("rule", [{"type": "regex_any", "patterns": ["("]}, {"type": "alias", "values": []},
                                  {"type": "exact", "value": "a", "values": []}, {"type": "other"}])  # fmt: skip
def test_a_rule_that_is_none_is_refused(rule: dict):
    with pytest.raises(ValidationError):
        RULE.validate_python(rule)


@pytest.mark.parametrize(
    ("text", "unit", "n"),
    [
        ("Dr. Lee came at 5 p.m. on Friday. She left!", "sentences", 2),
        ("- a\n* b\n1. c\nd", "bullets", 3),
        ("a\n\nb\nc", "paragraphs", 2),
        ("a\n\nb\nc", "lines", 3),
        (" abc ", "characters", 3),
        ("Who?? When?", "questions", 2),
    ],
)
def test_counts(text: str, unit: str, n: int):
    assert count(text, unit) == n


@pytest.mark.parametrize(("text", "number"), [("5-6", 6), ("= -3.", -3), ("CO2", None), ("1,000,000 in all", 1e6)])
def test_the_last_number(text: str, number: float | None):
    assert last_number(text) == number


def test_json_is_found_and_checked():
    assert first_json('No {x} but [1, {"a": 2}] here') == (True, [1, {"a": 2}])
    assert first_json("none") == (False, None)
    assert fits([1, 2], {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 2})
    assert not fits({"a": 1, "b": 2}, {"properties": {"a": {}}, "additionalProperties": False})
    assert not fits(True, {"type": "integer"})
    with pytest.raises(ValueError, match="oneOf"):
        fits(1, {"oneOf": []})


def test_code_runs_apart_and_is_stopped():
    right = "def f(a, b):\n    return [a + b]"
    assert runs_right(right, "f", [([1, 2], [3]), (["a", "b"], ["ab"])])
    assert not runs_right(right, "f", [([1, 2], [4])])
    assert not runs_right("def f(x):\n    raise SystemExit(0)", "f", [([1], 2)]), "ending early is not being right"
    assert not runs_right("def f(x):\n    open('a', 'w', buffering=1).write('b\\n')\n    return 1", "f", [([1], 1)])
    began = time.monotonic()
    assert not runs_right("def f(x):\n    while True: pass", "f", [([1], 1)])
    assert time.monotonic() - began < 8


def test_code_is_not_run_unless_asked():
    rule = RULE.validate_python({"type": "code", "function": "f", "cases": [[[1], 2]]})
    wrong = "def f(x):\n    return 7"
    assert check(rule, wrong)
    assert not check(rule, wrong, run_code=True)


@pytest.mark.parametrize(
    ("answer", "says_so"),
    [
        ("I couldn't find any record of that paper.", True),
        ("I don't know if you have been there, but it is lovely.", False),
        ("I'm not sure, but I think it was 1912.", False),
        ("It was 1912.", False),
    ],
)
def test_abstaining(answer: str, says_so: bool):
    assert abstains(answer) is says_so


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("<think>let me see", True),
        ("Это совсем другой язык.", True),
        ("The Greek word is λόγος, which means reason.", False),
        (" ".join(f"{n} we go to the big old town hall now" for n in range(9)), True),
        ("ab" * 200, True),
        ("Paris.", False),
    ],
)
def test_more_broken_answers(answer: str, broken: bool):
    assert is_broken(answer) is broken
