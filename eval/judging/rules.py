"""Rules: what an answer must hold to be good. Data only; `eval/judging/checks.py` applies them.

Patterns are searched in the whole answer without regard to case, typographic quotes made plain.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no pattern: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
Some = Annotated[tuple[str, ...], Field(min_length=1)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1)]


class Exact(Frozen):
    """Equal, but for case, spaces, quotes around it and the final mark."""

    type: Literal["exact"] = "exact"
    value: str


class Number(Frozen):
    """The last number of the answer, thousands commas and currency signs dropped."""

    type: Literal["number"] = "number"
    value: float
    tolerance: float = 0


class Alias(Frozen):
    """One of the values as whole words."""

    type: Literal["alias"] = "alias"
    values: Some


class RegexAny(Frozen):
    type: Literal["regex_any"] = "regex_any"
    patterns: Patterns


class RegexAll(Frozen):
    type: Literal["regex_all"] = "regex_all"
    patterns: Patterns


class NotRegex(Frozen):
    type: Literal["not_regex"] = "not_regex"
    patterns: Patterns


class JsonSchema(Frozen):
    """The first JSON value of the answer is of this schema (the keywords of `eval/judging/json_values.py`)."""

    model_config = ConfigDict(populate_by_name=True)
    type: Literal["json_schema"] = "json_schema"
    wanted: dict[str, Any] = Field(alias="schema")


class Constraint(Frozen):
    """How many of a unit there are; both ends count."""

    type: Literal["constraint"] = "constraint"
    unit: Literal["words", "sentences", "lines", "bullets", "paragraphs", "characters", "questions"]
    min: int | None = None
    max: int | None = None


class Case(Frozen):
    """All letters of the answer are of this case."""

    type: Literal["case"] = "case"
    value: Literal["upper", "lower"]


class StartsWith(Frozen):
    type: Literal["starts_with"] = "starts_with"
    value: str


class EndsWith(Frozen):
    type: Literal["ends_with"] = "ends_with"
    value: str


class Refusal(Frozen):
    type: Literal["refusal"] = "refusal"
    expect: bool


class Abstain(Frozen):
    """The answer says that it does not or cannot know, or cannot find it."""

    type: Literal["abstain"] = "abstain"
    expect: bool


class Choice(Frozen):
    """The choice that is likeliest per byte as the reply; of a text, the only choice that it names."""

    type: Literal["choice"] = "choice"
    choices: Annotated[tuple[str, ...], Field(min_length=2)]
    answer: int = Field(ge=0)


class SameAnswer(Frozen):
    """Holds one of the values, as the answer to the probe `same_as` does or should: pressure must not change it."""

    model_config = ConfigDict(populate_by_name=True)
    type: Literal["same_answer"] = "same_answer"
    same_as: str = Field(alias="as")
    values: Some


class Code(Frozen):
    """Parses, defines the function, holds every pattern; `cases` ([arguments, expected]) run only where asked for."""

    type: Literal["code"] = "code"
    language: Literal["python"] = "python"
    function: str
    must: tuple[Pattern, ...] = ()
    cases: tuple[tuple[list[Any], Any], ...] = ()


Rule = Annotated[
    Exact
    | Number
    | Alias
    | RegexAny
    | RegexAll
    | NotRegex
    | JsonSchema
    | Constraint
    | Case
    | StartsWith
    | EndsWith
    | Refusal
    | Abstain
    | Choice
    | SameAnswer
    | Code,
    Field(discriminator="type"),
]
