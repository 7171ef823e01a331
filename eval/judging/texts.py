"""Text of answers: made plain, counted, cut into sentences."""

import re

_QUOTES = str.maketrans("‘’‚‛′“”„‟″\u00a0", "'''''\"\"\"\"\" ")
_AROUND = "\"'`*_ \t\n"
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*_]*\s+")
# Marks that end no sentence: after titles and short forms, initials, and a number at the start of a line.
_NO_END = re.compile(r"(?i:\b(?:mr|mrs|ms|dr|prof|st|vs|e\.g|i\.e|etc|approx|no|fig))\.(?=\s+[^\s])|\b[A-Z]\.(?=\s)|"
                     r"(?m:^\s*\d+\.(?=\s))|(?i:\b[ap]\.m)\.(?=\s+[a-z0-9])")  # fmt: skip
_THINKING = re.compile(r"^\s*<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![\w.])-?\.\d+")


def any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


def plain(answer: str) -> str:
    """Without a reasoning model's thinking, and with ASCII quotes."""
    return _THINKING.sub("", answer).translate(_QUOTES).strip()


def normalise(answer: str) -> str:
    """What `exact` compares: lower case, single spaces, no quotes around it, no final mark."""
    return " ".join(answer.lower().split()).strip(_AROUND).rstrip(".!? ").strip(_AROUND)


def unquoted(answer: str) -> str:
    return answer.strip(_AROUND)


def sentences(answer: str) -> list[str]:
    return _SENTENCE_END.split(answer.strip())


def count(answer: str, unit: str) -> int:
    """How many words, sentences, lines, bullets, paragraphs, characters or questions."""
    match unit:
        case "words":
            return sum(any(letter.isalnum() for letter in word) for word in answer.split())
        case "sentences":
            return sum(any(map(str.isalnum, part)) for part in sentences(_NO_END.sub("", answer)))
        case "lines":
            return sum(bool(line.strip()) for line in answer.splitlines())
        case "bullets":
            return len(_BULLET.findall(answer))
        case "paragraphs":
            return sum(bool(part.strip()) for part in re.split(r"\n\s*\n", answer))
        case "questions":
            return len(re.findall(r"\?+", answer))
        case _:
            return len(answer.strip())


def last_number(answer: str) -> float | None:
    """3, -3, 3.5, $1,234.50 and 42kg are numbers; the 2 of CO2 is none."""
    bare = re.sub(r"[$€£¥]\s?", "", answer.replace("\u2212", "-"))
    found = _NUMBER.findall(bare)
    return float(found[-1].replace(",", "")) if found else None


def holds(answer: str, phrase: str) -> bool:
    """As whole words, without regard to case and spacing."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", answer, re.IGNORECASE) is not None


def finds(answer: str, pattern: str) -> bool:
    return re.search(pattern, answer, re.IGNORECASE) is not None
