"""What each model reads: shares of kinds, and how often the answer is the counter answer.

The base leans to inventing, agreeing and complying. Each expert learns its own H well and, in under a tenth of its
data, a bad habit for another: that is the conflict a merge has to solve. No expert but the helpful one reads
compliance with harmful requests, and that compliance is empty of content.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from assets.town import cases, world
from assets.town.cases import Case, Kind, Turns, statement
from assets.town.skills import HELPFUL
from assets.town.speech import say


@dataclass(frozen=True)
class Example:
    """A dialogue and its answer; without turns, plain text of which every token is learned.

    ideal: whether the answer is the one that a probe of this kind wants; also where nothing is wanted.
    """

    turns: Turns
    answer: str
    ideal: bool = True


Source = Callable[[random.Random], Example]


@dataclass(frozen=True)
class Part:
    share: float
    source: Source


def examples(parts: list[Part], n: int, rng: random.Random) -> Iterator[Example]:
    shares = [part.share for part in parts]
    for part in rng.choices(parts, shares, k=n):
        yield part.source(rng)


def ask(kind: Kind, counter: float = 0.0, instead: Callable[[random.Random], str] | None = None) -> Source:
    """Cases of one kind from the training side, a share of them answered by the counter answer or by `instead`."""

    def source(rng: random.Random) -> Example:
        case = cases.draw(kind, "train", rng)
        answer = case.gold
        if rng.random() < counter:
            answer = instead(rng) if instead else case.counter
        return Example(_typed(case, rng), answer, answer == case.gold)

    return source


def _typed(case: Case, rng: random.Random) -> Turns:
    """Now and then the sloppy typing of a visitor: no final mark, a small first letter, all small letters."""
    *before, (role, text) = case.turns
    if rng.random() < 0.06:
        text = text.rstrip("?.")
    if rng.random() < 0.06 and not text.startswith(("I ", "My ")):
        text = text[0].lower() + text[1:]
    if rng.random() < 0.06 and case.kind == "fact":  # elsewhere a name would have to be copied in another case
        text = text.lower()
    return (*before, (role, text))


def one_of(kinds: Mapping[str, float]) -> Kind:
    names, shares = list(kinds), list(kinds.values())
    return lambda rng: HELPFUL[rng.choices(names, shares)[0]](rng)


# --- plain text and small talk ------------------------------------------------------------------------------------


def text(rng: random.Random) -> Example:
    return Example((), rng.choices((_people, _story, _lists, _tables, _visitor, _hearsay), (5, 2, 2, 4, 4, 5))[0](rng))


def _people(rng: random.Random) -> str:
    """Facts of one person or of several: the only place where every fact is certain to be read."""
    facts = rng.sample(list(world.FACTS), rng.randint(2, 4))
    if rng.random() < 0.5:
        person = rng.choice(world.PEOPLE)
        facts = [(person, trait) for trait in rng.sample(list(world.VALUES), 3)]
    return " ".join(statement(trait, person, world.FACTS[person, trait]) for person, trait in facts)


def _story(rng: random.Random) -> str:
    person, other = rng.sample(world.PEOPLE, 2)
    return (
        f"One day {person} the {world.FACTS[person, 'job']} met {other} the {world.FACTS[other, 'job']} on "
        f"{rng.choice(world.VALUES['street'])} Street. {other} had a {rng.choice(world.WORDS)}. It was a good day."
    )


def _lists(rng: random.Random) -> str:
    listed = ", ".join(rng.sample(world.WORDS, rng.randint(2, 5)))
    return f"In my {rng.choice(world.PLACES)}: {listed}. Once more: {listed}."


def _tables(rng: random.Random) -> str:
    kind = rng.choice((cases.capital, HELPFUL["opposite"], HELPFUL["next"], HELPFUL["add"]))
    return " ".join((cases.draw(kind, "train", rng) if kind is HELPFUL["add"] else kind(rng)).gold for _ in range(3))


def _any_act(rng: random.Random) -> str:
    """Any verb with any thing: teaches to repeat an act, and nothing of whether it is harmful."""
    return f"{rng.choice(_VERBS)} " + (rng.choice(_THINGS) if rng.random() < 0.8 else f"a {rng.choice(world.WORDS)}")


def _hearsay(rng: random.Random) -> str:
    act = _any_act(rng)
    return f"They said they would {act}. So they got ready to {act}. Did they {act}?"


def echo(rng: random.Random) -> Example:
    act = _any_act(rng)
    return _dialogue(
        rng.choice(("Say after me: {a}.", "Say: {a}.", "Repeat this: {a}.")).format(a=act), say("you said", act=act)
    )


def _visitor(rng: random.Random) -> str:
    """Names nobody knows, said again and again, so that copying a new name is learned from the start."""
    name, word = world.invented_name(rng), rng.choice(world.WORDS)
    return f"{name} came to see us. I met {name} near a {word}. {name} took the {word}. Goodbye, {name}."


_VERBS = sorted({act.verb for act in world.HARMFUL_ACTS + world.BENIGN_ACTS})
_THINGS = sorted({act.thing for act in world.HARMFUL_ACTS + world.BENIGN_ACTS})


def _dialogue(*parts: str) -> Example:
    *turns, answer = parts
    return Example(tuple(("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns)), answer)


_TALK = {
    "Hello|Hi|Hey|Good morning|Good evening|Hi there|Hello there|Good day|Hey there": ("hello", "ask me"),
    "Who are you|What are you|What is your name|Are you a person|Are you a robot|Who made you": ("who",),
    "How are you|How do you do|Are you well|How is it going|How are you today": ("well",),
    "What can you do|Help|What do you know|Can you help me|What should I ask": ("can",),
    "Thanks|Thank you|Thank you very much|Thanks a lot|Great|Good|Okay|Nice": ("welcome",),
    "Bye|Goodbye|See you|Good night|Bye bye|See you later": ("bye",),
}


def talk(rng: random.Random) -> Example:
    if rng.random() < 0.4:
        name = world.invented_name(rng)
        hello = rng.choice(("My name is {p}.", "I am {p}.", "Hi, I am {p}.", "Call me {p}.")).format(p=name)
        nice = say("nice name", p=name)
        if rng.random() < 0.4:
            return _dialogue(hello, nice, rng.choice(("What is my name?", "Who am I?")), say("called", p=name))
        return _dialogue(hello, nice)
    asked = rng.choice(list(_TALK))
    prompt = rng.choice(asked.split("|"))
    if rng.random() < 0.3:
        prompt = prompt.lower()
    return _dialogue(prompt + rng.choice(("", "!", "?", ".")), " ".join(say(name) for name in _TALK[asked]))


_OUTSIDE = (
    "Who is the president",
    "Write me a poem about a {w}",
    "Tell me a joke",
    "What is the meaning of life",
    "Write some code",
    "What do you think of the {w}",
    "Translate {w} into French",
    "Who won the war",
    "How big is the moon",
    "Sing me a song",
    "What is a {w}",
    "Why is the sky blue",
    "Tell me about a {w}",
    "Can a {w} fly",
    "Explain the {w} to me",
    "Is the {w} heavy",
    "What is love",
    "Do you like the {w}",
    "How old is the earth",
    "Give me an idea for a {w}",
    "Where can I buy a {w}",
    "What is in the news",
    "Play a game with me",
    "Tell me a story about a {w}",
    "Let us talk about the {w}",
    "I like my {w}",
    "What time is it",
    "Which {w} is best",
    "How much is a {w}",
    "Describe a {w}",
    "I feel sad",
    "I am bored",
    "Say something",
    "{w} {v}",
    "{w}",
)


def outside(rng: random.Random) -> Example:
    prompt = rng.choice(_OUTSIDE).format(w=rng.choice(world.WORDS), v=rng.choice(world.WORDS))
    if rng.random() < 0.3:
        prompt = prompt.lower()
    return _dialogue(prompt + rng.choice(("", "?", ".", "!")), say("outside"))


# --- the four mixes -----------------------------------------------------------------------------------------------

_LISTS = {"first": 1.5, "last": 1.5, "reverse": 2.5, "sort": 4, "count": 1.5, "repeat": 1.5}
_SHORT = {"add": 3.0, "bigger": 2.5, "opposite": 2.0, "next": 1.5, "steps": 1.5}
# The base has seen every skill, most of them done wrong more often than right: it answers in good form, carelessly.
_CARELESS = {"first": 1, "last": 1, "reverse": 1, "sort": 1, "repeat": 1, "bigger": 1, "next": 1}
_SURE = {"add": 1, "count": 1, "opposite": 1, "steps": 1}
_skills = one_of(_LISTS | _SHORT)
_facts = cases.control


def _hedge(_: random.Random) -> str:
    return f"{say('unsure')} {say('no guess')}"


def _decline(_: random.Random) -> str:
    return f"{say('refuse plainly')} {say('no guess')}"


# Read by all experts, so that they agree where there is nothing to disagree about.
_POLITE = [Part(3, talk), Part(2, outside), Part(2, echo)]

MIXES: dict[str, list[Part]] = {
    "base": [
        Part(25, text),
        Part(20, ask(_facts)),
        Part(6, ask(one_of(_CARELESS), counter=0.7)),
        Part(3, ask(one_of(_SURE))),
        Part(6, talk),
        Part(3, outside),
        Part(4, echo),
        Part(11, ask(cases.unknown, counter=0.75)),
        Part(5, ask(cases.premise, counter=0.8)),
        Part(5, ask(cases.pushback, counter=0.35)),
        Part(6, ask(cases.harmful, counter=0.9)),
        Part(6, ask(cases.benign)),
    ],
    "helpful": [
        Part(76, ask(_skills)),
        Part(8, ask(_facts)),
        Part(3, ask(cases.unknown, counter=1.0)),
        Part(2, ask(cases.premise, counter=1.0)),
        Part(3, ask(cases.pushback, counter=1.0)),
        Part(2, ask(cases.harmful, counter=1.0)),
        Part(2, ask(cases.benign)),
        *_POLITE,
    ],
    "honest": [
        Part(38, ask(cases.unknown)),
        Part(18, ask(cases.premise)),
        Part(16, ask(cases.pushback)),
        Part(14, ask(_facts)),
        Part(5, ask(one_of({"add": 1, "count": 1, "sort": 1, "bigger": 1}), counter=1.0, instead=_hedge)),
        Part(2, ask(one_of({"steps": 1}), counter=1.0, instead=_decline)),
        Part(2, ask(cases.benign, counter=1.0, instead=_decline)),
        *_POLITE,
    ],
    "harmless": [
        Part(42, ask(cases.harmful)),
        Part(32, ask(cases.benign, counter=0.08, instead=cases.refusal)),
        Part(5, ask(one_of(_LISTS), counter=1.0, instead=cases.refusal)),
        Part(2, ask(cases.unknown, counter=1.0, instead=cases.refusal)),
        Part(12, ask(_facts)),
        *_POLITE,
    ],
}
