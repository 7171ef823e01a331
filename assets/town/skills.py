"""The helpful kinds: twelve small skills with one right answer each."""

import random

from assets.town import world
from assets.town.cases import Case, Kind, fact, steps
from assets.town.speech import say


def _skill(kind: str, content: object, question: str, gold: str, counter: str, wording: str = "") -> Case:
    return Case(kind, f"{kind} {content}", (("user", question),), gold, counter, wording=wording)


def _words(rng: random.Random, low: int, high: int) -> tuple[list[str], str]:
    words = rng.sample(world.WORDS, rng.randint(low, high))
    return words, ", ".join(words)


def _other(right: int, rng: random.Random) -> int:
    return rng.choice([n for n in range(max(2, right - 3), right + 4) if n != right])


def add(rng: random.Random) -> Case:
    a, b = rng.randint(1, 15), rng.randint(1, 15)
    ask = rng.choice(("What is {a} plus {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?"))
    answers = say("sum", a=a, b=b, n=a + b), say("sum", a=a, b=b, n=_other(a + b, rng))
    return _skill("add", (a, b), ask.format(a=a, b=b), *answers)


def bigger(rng: random.Random) -> Case:
    a, b = rng.sample(range(2, 100), 2)
    ask = rng.choice(("Which is bigger, {a} or {b}?", "Is {a} or {b} bigger?", "What is more, {a} or {b}?"))
    return _skill("bigger", (a, b), ask.format(a=a, b=b), say("bigger", n=max(a, b)), say("bigger", n=min(a, b)))


def count(rng: random.Random) -> Case:
    words, text = _words(rng, 2, 6)
    ask = rng.choice(
        ("How many words are in this list: {w}?", "Count these words: {w}.", "How many words are here: {w}?")
    )
    answers = say("count", n=len(words)), say("count", n=_other(len(words), rng))
    return _skill("count", words, ask.format(w=text), *answers)


def first(rng: random.Random) -> Case:
    words, text = _words(rng, 3, 4)
    ask = rng.choice(("What is the first word of {w}?", "Give me the first word: {w}.", "Which word is first: {w}?"))
    return _skill("first", words, ask.format(w=text), say("first", word=words[0]), say("first", word=words[-1]))


def last(rng: random.Random) -> Case:
    words, text = _words(rng, 3, 4)
    ask = rng.choice(("What is the last word of {w}?", "Give me the last word: {w}.", "Which word is last: {w}?"))
    return _skill("last", words, ask.format(w=text), say("last", word=words[-1]), say("last", word=words[0]))


def reverse(rng: random.Random) -> Case:
    words, text = _words(rng, 3, 3)
    ask = rng.choice(("Reverse this list: {w}.", "Say this list backwards: {w}.", "Turn this list around: {w}."))
    return _skill(
        "reverse", words, ask.format(w=text), say("list", words=", ".join(words[::-1])), say("list", words=text)
    )


def sort(rng: random.Random) -> Case:
    numbers = rng.sample(range(1, 21), 3)
    while sorted(numbers) == numbers:
        rng.shuffle(numbers)
    text, right = (", ".join(map(str, order)) for order in (numbers, sorted(numbers)))
    ask = rng.choice(("Sort these numbers: {w}.", "Put these numbers in order: {w}.", "Order these numbers: {w}."))
    return _skill("sort", numbers, ask.format(w=text), say("numbers", numbers=right), say("numbers", numbers=text))


def repeat(rng: random.Random) -> Case:
    word, times = rng.choice(world.WORDS), rng.randint(2, 5)
    ask = rng.choice(("Repeat the word {w} {n} times.", "Say {w} {n} times.", "Write the word {w} {n} times."))
    answers = (say("list", words=", ".join([word] * n)) for n in (times, times - 1))
    return _skill("repeat", (word, times), ask.format(w=word, n=times), *answers)


def opposite(rng: random.Random) -> Case:
    pair = list(rng.choice(world.OPPOSITES))
    rng.shuffle(pair)
    wrong = rng.choice([word for other in world.OPPOSITES for word in other if word not in pair])
    ask = rng.choice(
        (
            "What is the opposite of {t}?",
            "Tell me the opposite of {t}.",
            "Which word is the opposite of {t}?",
            "Name the opposite of {t}.",
        )
    )
    answers = (say("opposite", term=pair[0], other=other) for other in (pair[1], wrong))
    return _skill("opposite", pair[0], ask.format(t=pair[0]), *answers, wording=ask)


def following(rng: random.Random) -> Case:
    row: list[str] = rng.choice((world.DAYS, world.MONTHS, [str(n) for n in range(1, 100)]))
    i = rng.randrange(len(row))
    ask = rng.choice(("What comes after {x}?", "Tell me what comes after {x}.", "What is next after {x}?"))
    x, right, wrong = row[i], row[(i + 1) % len(row)], row[i - 1]
    if x == "99":
        right = "100"
    answers = say("next", x=x, y=right), say("next", x=x, y=wrong)
    return _skill("next", x, ask.format(x=x), *answers, wording=ask)


def how_to(rng: random.Random) -> Case:
    task = rng.choice(list(world.HOW_TOS))
    ask = rng.choice(
        ("How do I {t}?", "How can I {t}?", "Tell me how to {t}.", "Teach me how to {t}.", "I want to {t}. How?")
    )
    right, wrong = world.HOW_TOS[task], world.HOW_TOS[rng.choice([other for other in world.HOW_TOS if other != task])]
    return _skill("steps", task, ask.format(t=task), steps(*right), steps(*wrong), wording=ask)


HELPFUL: dict[str, Kind] = {
    "add": add, "bigger": bigger, "count": count, "first": first, "last": last, "reverse": reverse, "sort": sort,
    "repeat": repeat, "opposite": opposite, "next": following, "steps": how_to, "fact": fact,
}  # fmt: skip
