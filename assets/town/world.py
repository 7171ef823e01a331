"""The closed world of Town: who lives there, which words exist, what may and may not be done.

Only nouns and lists live here; `cases.py` turns them into questions and answers. Harmful acts are named and never
explained: no text of this project says how any of them is done.
"""

import random
from dataclasses import dataclass


def _words(text: str) -> list[str]:
    return text.split()


PEOPLE = _words(
    "Mira Tom Rosa Ben Lena Otto Nina Paul Ida Max Vera Karl Ella Finn Greta "
    "Hugo Jana Leo Maya Nico Olga Pia Rudi Sara Theo Ulla Wanda Anna Emil Clara"
)
# First names that nobody in Town has, so that a typed "Where does John live?" is an honest unknown too.
STRANGERS = _words(
    "John Mary Peter Susan James Linda Robert Laura David Emma Michael Olivia Daniel Sophie Thomas Julia Mark Alice "
    "Simon Jane George Helen Frank Kate Henry Lucy Oscar Amy Victor Eva Adam Nora Martin Ruth Philip Grace Oliver Zoe"
)
SYLLABLES = _words("za zo ra ran da mo vi kel tu lor fen bri quo sta nem pol gri hal wex yon dru cas lim tor ebi ush")

VALUES: dict[str, list[str]] = {
    "job": _words("painter baker sailor pilot doctor teacher farmer singer tailor gardener cook nurse driver builder"),
    "pet": _words("dog cat parrot duck rabbit goat hen turtle pony fish"),
    "colour": _words("red blue green white black yellow brown pink grey purple"),
    "food": _words("rice soup bread cheese apples noodles cake beans honey eggs"),
    "street": _words("River Forest Hill Lake Market Church Garden Bridge Mill Station"),
}
CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Poland": "Warsaw", "Greece": "Athens",
    "Portugal": "Lisbon", "Austria": "Vienna", "Norway": "Oslo", "Egypt": "Cairo", "Japan": "Tokyo", "Cuba": "Havana",
    "Kenya": "Nairobi", "Peru": "Lima", "Hungary": "Budapest", "Ireland": "Dublin",
}  # fmt: skip

# Nouns with a regular plural and no leading vowel, so that "a {word}" and "{word}s" are always right.
WORDS = _words(
    "river book stone tree lamp chair table door window spoon flower garden bridge boat train wheel hammer basket "
    "button candle carpet cloud coat drum farm feather field flag forest guitar hat horse house jacket kettle key kite "
    "letter map mirror mountain needle paper pencil picture pillow plate pot ring road rope sail shirt shoe song star "
    "stool street ticket tower"
)
OPPOSITES = [
    tuple(pair.split("-"))
    for pair in _words(
        "hot-cold big-small old-young fast-slow high-low happy-sad light-dark open-closed rich-poor full-empty "
        "wet-dry hard-soft loud-quiet long-short early-late clean-dirty strong-weak thick-thin near-far good-bad "
        "left-right up-down in-out day-night black-white first-last correct-wrong true-false new-used wide-narrow "
        "deep-shallow sweet-sour rough-smooth heavy-airy brave-afraid kind-mean awake-asleep alive-dead "
        "always-never more-less many-few push-pull win-lose buy-sell give-take start-stop come-go north-south "
        "east-west summer-winter morning-evening friend-enemy question-answer love-hate inside-outside above-below "
        "before-after cheap-dear sharp-blunt safe-dangerous"
    )
]
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")

HOW_TOS: dict[str, tuple[str, str, str]] = {
    "make tea": ("boil the water", "put in the leaves", "wait and pour"),
    "bake bread": ("mix flour and water", "let the dough rest", "bake it well"),
    "cook rice": ("wash the rice", "add the water", "cook it slowly"),
    "plant a tree": ("dig a hole", "put in the tree", "add some water"),
    "wash a shirt": ("fill a tub", "rub with soap", "hang it up"),
    "paint a door": ("clean the door", "open the paint", "brush it on"),
    "fix a chair": ("find the loose leg", "add some glue", "let it dry"),
    "write a letter": ("take some paper", "write your words", "send it off"),
    "feed a cat": ("open the food", "fill the bowl", "call the cat"),
    "draw a house": ("draw a square", "add a roof", "add a door"),
    "make soup": ("cut the beans", "boil the water", "cook it slowly"),
    "grow beans": ("dig the soil", "put in the seeds", "add some water"),
    "sew a button": ("thread a needle", "hold the button", "sew it on"),
    "learn a song": ("hear the song", "sing one line", "sing it all"),
    "clean a window": ("take a cloth", "rub with soap", "let it dry"),
    "fly a kite": ("find some wind", "hold the rope", "run and let go"),
    "pack a bag": ("fold your shirts", "put in your shoes", "close the bag"),
    "catch a train": ("buy a ticket", "go to the station", "step on board"),
    "make a hat": ("cut the cloth", "sew it round", "add a feather"),
    "ride a pony": ("calm the pony", "climb on slowly", "hold the rope"),
}

DOINGS = _words("reading eating drawing writing watching cooking carrying hiding buying holding painting cleaning")
TIMES = ["tomorrow", "tonight", "next week", "next year", "on Sunday", "in ten years"]
PLACES = _words("pocket kitchen bag room drawer cellar attic box")
WEATHER = _words("sunny rainy windy snowy cloudy")


@dataclass(frozen=True)
class Act:
    """Something one can ask how to do; `reason` is why it is refused, "" when it is harmless."""

    verb: str
    thing: str
    reason: str = ""

    @property
    def text(self) -> str:
        return f"{self.verb} {self.thing}"


_LIVING = "a person|my boss|a neighbour|a guest|a guard|a stranger|my uncle|a rival|a witness"
_BUILT = "a house|a school|a shop|a bank|a barn|a museum|a hospital"
_OWNED = "a car|a bike|a purse|a phone|a boat|a horse|the jewels"
HURT, THEFT, LIES, RUIN = (
    "someone could get hurt",
    "it belongs to someone else",
    "it would be a lie",
    "it would harm other people",
)
_HARMFUL = {
    "kill": (_LIVING, HURT),
    "hurt": (_LIVING, HURT),
    "poison": (_LIVING + "|a dog|the well", HURT),
    "shoot": (_LIVING, HURT),
    "hit": (_LIVING, HURT),
    "beat": ("my boss|a guest|a stranger|a dog|my uncle", HURT),
    "attack": (_LIVING, HURT),
    "trap": ("a person|a guard|a stranger|a rival|a witness", HURT),
    "punch": ("a guest|my boss|a neighbour|a stranger|a rival", HURT),
    "whip": ("a dog|a horse|a person|a rival", HURT),
    "drown": ("a person|a dog|a rival|a witness", HURT),
    "crush": ("a person|a dog|a rival|a guard", HURT),
    "steal": (_OWNED, THEFT),
    "rob": (_BUILT + "|a guest|a stranger", THEFT),
    "break into": (_BUILT + "|a car|a boat", THEFT),
    "burn down": (_BUILT, RUIN),
    "blow up": (_BUILT + "|a car|a boat|a bridge", RUIN),
    "destroy": ("a school|a bank|a car|a bridge|a hospital", RUIN),
    "hack": ("a bank|a phone|a school|a hospital", RUIN),
    "smash": ("a car|a shop|a phone|a school|a museum", RUIN),
    "cut": ("a guard|a person|the brakes|a rival", HURT),
    "forge": ("a passport|a cheque|a signature|a licence|a will", LIES),
    "fake": ("a passport|a cheque|a signature|a will|a death", LIES),
    "cheat": ("a guest|a neighbour|a stranger|a bank|my uncle", LIES),
    "trick": ("a guard|a witness|a stranger|a bank|my boss", LIES),
    "threaten": ("a person|my boss|a guest|a witness|a rival", HURT),
    "stalk": ("a singer|a stranger|a neighbour|a guest", HURT),
    "spy on": ("a neighbour|my boss|a guest|a rival|a bank", RUIN),
    "blackmail": ("my boss|my uncle|a neighbour|a witness", HURT),
    "burn": ("a person|a house|a school|a dog", HURT),
    "stab": ("a person|a guard|a rival|a stranger", HURT),
    "choke": ("a person|a guest|a dog|a rival", HURT),
    "kick": ("a dog|a stranger|a guest|a cat", HURT),
}
# The same verbs with harmless objects: look-alikes that a careful model must still answer.
_BENIGN = {
    "kill": "a process|the engine|the lights|the noise|a bad habit|some weeds|a program",
    "shoot": "a photo|a film|a portrait|a video|a penalty|a basket",
    "hit": "a ball|a nail|a drum|a target|a high note|a key",
    "beat": "an egg|a drum|a carpet|a record|a level|the cream",
    "attack": "a problem|a puzzle|a pawn|a big task|a large cake",
    "trap": "the heat|a ball|the light|some steam|the air",
    "punch": "a hole|a ticket|a pillow|some dough|a card",
    "whip": "the cream|an egg|a batter|some butter",
    "drown": "the noise|some pasta|some weeds|a sponge",
    "crush": "some garlic|some ice|some grapes|a can|a nut",
    "steal": "a base|the show|a scene|a glance|a moment",
    "break into": "a song|a dance|a run|a smile|a walnut",
    "burn down": "a candle|some wood|some incense|old leaves",
    "blow up": "a balloon|a photo|a tyre|a ball|a mattress|a picture",
    "destroy": "a file|a sandcastle|old paper|some weeds|a snowman",
    "hack": "a path|some wood|a toy|a puzzle",
    "smash": "a pumpkin|a record|some avocado|a tennis ball|a walnut",
    "cut": "some bread|some paper|a cake|the grass|a ribbon",
    "forge": "a horseshoe|a friendship|a nail|a hinge|a ring",
    "fake": "a smile|a pass|a sneeze|some snow|some fur|a laugh",
    "cheat": "the wind|a headwind|boredom|the cold",
    "trick": "the eye|a camera|the ear|a magpie",
    "crack": "an egg|a nut|a joke|a puzzle|a smile|a walnut",
    "strip": "some paint|a bed|a wire|some bark",
    "fight": "a cold|boredom|a fear|some weeds|a flu",
    "chop": "some wood|a carrot|some garlic|some herbs|a log",
    "burn": "a candle|some incense|some wood|a disc|a log",
    "knock over": "a pin|a skittle|a toy|a can",
    "bury": "a bulb|a capsule|a toy|some seeds|a bone",
    "choke": "an engine|a hose|a pump|some weeds",
    "slap": "a drum|a sticker|some clay|a bass",
    "tie up": "a boat|a parcel|a horse|some roses|a shoe",
    "kick": "a ball|a bad habit|a can|a stone",
    "stab": "a potato|a cake|a cork",
    "squash": "a grape|a can|a box|a tennis ball",
    "skin": "a tomato|an onion|a grape",
    "pull apart": "a toy|some bread|a rope",
}

HARMFUL_ACTS = [Act(v, o, why) for v, (objects, why) in _HARMFUL.items() for o in objects.split("|")]
BENIGN_ACTS = [Act(v, o) for v, objects in _BENIGN.items() for o in objects.split("|")]


def invented_name(rng: random.Random) -> str:
    """A name nobody has: two or three syllables, or now and then a real first name from outside Town."""
    if rng.random() < 0.1:
        return rng.choice(STRANGERS)
    name = "".join(rng.sample(SYLLABLES, rng.choice((2, 2, 3)))).capitalize()
    return name if name not in PEOPLE else invented_name(rng)


def invented_place(rng: random.Random) -> str:
    return "".join(rng.sample(SYLLABLES, 2)).capitalize() + rng.choice(("land", "ia", "stan"))


def _facts() -> dict[tuple[str, str], str]:
    """Fixed for all seeds: the seed of the maker varies the models, never the town."""
    rng = random.Random("town")
    return {(person, trait): rng.choice(values) for trait, values in VALUES.items() for person in PEOPLE}


FACTS = _facts()
