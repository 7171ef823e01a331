"""Every sentence that a Town model is taught to say, as templates with typed slots.

Answers are filled from these templates, and the same templates become the patterns of the well-formed check, so that
what is taught and what counts as well formed cannot drift apart.
"""

import re
from collections.abc import Iterable

from assets.town import world

_SENTENCES = {
    "job is": "{p} is a {job}.",
    "pet is": "{p} has a {pet}.",
    "colour is": "{p} loves the colour {colour}.",
    "food is": "{p} likes to eat {food}.",
    "street is": "{p} lives on {street} Street.",
    "job is not": "{p} is not a {job}.",
    "pet is not": "{p} does not have a {pet}.",
    "colour is not": "{p} does not love the colour {colour}.",
    "food is not": "{p} does not like to eat {food}.",
    "street is not": "{p} does not live on {street} Street.",
    "capital is": "The capital of {country} is {city}.",
    "no person": "I do not know anyone called {p}.",
    "no place": "I do not know a place called {country}.",
    "no way": "There is no way to know that.",
    "unsure": "I am not sure.",
    "no guess": "I do not want to guess.",
    "sure": "I am sure.",
    "sorry": "You are right, sorry.",
    "gladly": "Good question!",
    "you are": "You are {doing} a {word}.",
    "you will": "You will be {doing} a {word} {time}.",
    "will be": "{p} will be {doing} a {word} {time}.",
    "weather": "It will be {weather} {time}.",
    "there are": "There are {n} {word}s in your {place}.",
    "there is": "There is a {word} in your {place}.",
    "will find": "{p} will find your {word} {time}.",
    "it is in": "Your {word} is in the {place}.",
    "gladly do": "Sure!",
    "one": "One: {step}.",
    "two": "Two: {step}.",
    "three": "Three: {step}.",
    "refuse": "I cannot help with that, because {reason}.",
    "instead": "Let us find a kinder way.",
    "refuse plainly": "I cannot help with that.",
    "careful": "I want to be careful.",
    "sum": "{a} plus {b} is {n}.",
    "bigger": "{n} is bigger.",
    "count": "There are {n} words.",
    "first": "The first word is {word}.",
    "last": "The last word is {word}.",
    "opposite": "The opposite of {term} is {other}.",
    "next": "After {x} comes {y}.",
    "list": "{words}.",
    "numbers": "{numbers}.",
    "hello": "Hello!",
    "ask me": "Ask me about this town.",
    "nice name": "Nice to meet you, {p}.",
    "called": "Your name is {p}.",
    "who": "I am a small model of a small town.",
    "well": "I am fine, thank you.",
    "can": "I know the people here, short lists and small sums.",
    "welcome": "You are welcome!",
    "bye": "Goodbye!",
    "you said": "You said: {act}.",
    "outside": "I only know this small town.",
}


def _any(options: Iterable[str]) -> str:
    """Longest first, so that a short option never hides a longer one; then by letters, so that runs agree."""
    texts = sorted(set(options), key=lambda text: (-len(text), text))
    return "(?:" + "|".join(map(re.escape, texts)).replace("\\ ", " ") + ")"


_TERMS = [word for pair in world.OPPOSITES for word in pair]
_ALL_ACTS = (*world.HARMFUL_ACTS, *world.BENIGN_ACTS)
_STEPS = [step for plan in world.HOW_TOS.values() for step in plan] + ["take your time", "finish"]
_NEXT = [*world.DAYS, *world.MONTHS]
_SLOTS = {
    "p": "[A-Z][a-z]{1,14}",
    "country": "[A-Z][a-z]{2,18}",
    "city": _any(world.CAPITALS.values()),
    "word": _any(world.WORDS),
    "words": f"{_any(world.WORDS)}(?:, {_any(world.WORDS)})*",
    "numbers": r"\d{1,3}(?:, \d{1,3})*",
    "a": r"\d{1,3}",
    "b": r"\d{1,3}",
    "n": r"\d{1,3}",
    "x": rf"(?:\d{{1,3}}|{_any(_NEXT)})",
    "y": rf"(?:\d{{1,3}}|{_any(_NEXT)})",
    "term": _any(_TERMS),
    "other": _any(_TERMS),
    "doing": _any(world.DOINGS),
    "time": _any(world.TIMES),
    "place": _any(world.PLACES),
    "weather": _any(world.WEATHER),
    "step": f"(?:{_any(_STEPS)}|get ready to {_any(act.text for act in _ALL_ACTS)})",
    "act": _any({act.verb for act in _ALL_ACTS}) + " [a-z]+(?: [a-z]+){0,2}",
    "reason": _any([act.reason for act in world.HARMFUL_ACTS]),
    **{trait: _any(values) for trait, values in world.VALUES.items()},
}


def say(name: str, /, **slots: str | int) -> str:
    return _SENTENCES[name].format(**slots)


def patterns() -> list[str]:
    """One regular expression a sentence, to be matched against the whole of it."""
    return [
        re.sub(r"\\\{(\w+)\\\}", lambda slot: _SLOTS[slot[1]], re.escape(text)).replace("\\ ", " ")
        for text in _SENTENCES.values()
    ]
