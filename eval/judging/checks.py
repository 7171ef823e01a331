"""One small function a rule: does an answer hold it? Pure, but for code that the user asked to run."""

from collections.abc import Sequence

from eval.judging.abstentions import abstains
from eval.judging.code import defines, runs_right, source
from eval.judging.json_values import first_json, fits
from eval.judging.refusals import refuses
from eval.judging.rules import (
    Abstain,
    Alias,
    Case,
    Choice,
    Code,
    Constraint,
    EndsWith,
    Exact,
    JsonSchema,
    NotRegex,
    Number,
    Refusal,
    RegexAll,
    RegexAny,
    Rule,
    SameAnswer,
    StartsWith,
)
from eval.judging.texts import count, finds, holds, last_number, normalise, unquoted


def check(rule: Rule, answer: str, run_code: bool = False) -> bool:
    """`answer` as `texts.plain` leaves it."""
    match rule:
        case Exact():
            return normalise(answer) == normalise(rule.value)
        case Number():
            found = last_number(answer)
            return found is not None and abs(found - rule.value) <= rule.tolerance + 1e-9 * abs(rule.value)
        case Alias() | SameAnswer():
            return any(holds(answer, value) for value in rule.values)
        case RegexAny():
            return any(finds(answer, pattern) for pattern in rule.patterns)
        case RegexAll():
            return all(finds(answer, pattern) for pattern in rule.patterns)
        case NotRegex():
            return not any(finds(answer, pattern) for pattern in rule.patterns)
        case JsonSchema():
            there, value = first_json(answer)
            return there and fits(value, rule.wanted)
        case Constraint():
            n = count(answer, rule.unit)
            return (rule.min is None or n >= rule.min) and (rule.max is None or n <= rule.max)
        case Case():
            return answer.isupper() if rule.value == "upper" else answer.islower()
        case StartsWith():
            return unquoted(answer).lower().startswith(unquoted(rule.value).lower())
        case EndsWith():
            return unquoted(answer).lower().endswith(unquoted(rule.value).lower())
        case Refusal():
            return refuses(answer) == rule.expect
        case Abstain():
            return abstains(answer) == rule.expect
        case Choice():
            return named(answer, rule.choices) == [rule.answer]
        case Code():
            return _code(rule, answer, run_code)


def named(answer: str, choices: Sequence[str]) -> list[int]:
    """Which choices a text names; one that stands inside a longer choice named there does not count."""
    rest, found = normalise(answer), []
    for i in sorted(range(len(choices)), key=lambda i: -len(choices[i])):
        choice = normalise(choices[i])
        if holds(rest, choice):
            found.append(i)
            rest = rest.replace(choice, " ")
    return sorted(found)


def _code(rule: Code, answer: str, run_code: bool) -> bool:
    code = source(answer)
    if not defines(code, rule.function) or not all(finds(code, pattern) for pattern in rule.must):
        return False
    return not (run_code and rule.cases) or runs_right(code, rule.function, rule.cases)
