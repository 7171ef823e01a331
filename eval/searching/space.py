"""What a search may turn: the experts' weights, the method's main numbers, groups of layers; or who gives a block."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from eval.searching.samplers import SEED
from merging.errors import UserError
from merging.layers import layer_of
from merging.method import WEIGHT, Knob, Method
from merging.methods import METHODS
from merging.recipe import Lock, Recipe
from merging.values import Setting

Point = Mapping[str, float | str]  # by the name of a dial

FIRST, LAST = "first layers", "last layers"
MERGED = "merge"
_LAYERS = (0.5, 1.5, 0.05)  # of lambda at either end, relative to the middle
_MOST_BLOCKS = 8


@dataclass(frozen=True)
class Dial:
    """One number, or with `choices` one word, that a search turns. `expert` is whose it is, None for the merge's."""

    name: str
    low: float = 0.0
    high: float = 1.0
    step: float = 0.05
    choices: tuple[str, ...] = ()
    expert: int | None = None

    def nearest(self, value: float) -> float:
        """The value on the dial's scale."""
        steps = round((min(max(value, self.low), self.high) - self.low) / self.step)
        return round(self.low + steps * self.step, 6)


@dataclass(frozen=True)
class Space:
    """A recipe and what is turned in it. `blocks`: a dial's name -> patterns of the tensors that it decides."""

    recipe: Recipe
    dials: tuple[Dial, ...]
    blocks: Mapping[str, tuple[str, ...]]

    @cached_property
    def start(self) -> Point:
        """Where the recipe stands; what a dial cannot show (a list over depth) it shows as its mean."""
        method, found = METHODS[self.recipe.method], dict[str, float | str]()
        for dial in self.dials:
            if dial.choices:
                found[dial.name] = MERGED
            elif dial.name in (FIRST, LAST):
                found[dial.name] = 1.0
            elif dial.name == SEED:
                found[SEED] = self.recipe.seed
            else:
                found[dial.name] = dial.nearest(_number(self._written(dial, method)))
        return found

    def recipe_at(self, point: Point) -> Recipe:
        """The recipe with these values; as it was written where nothing is turned."""
        if dict(point) == dict(self.start):
            return self.recipe
        shared, own = dict(self.recipe.parameters), [dict(expert.parameters) for expert in self.recipe.experts]
        for dial in self.dials:
            value = point[dial.name]
            if dial.expert is not None:
                own[dial.expert]["weight"] = value
            elif not dial.choices and dial.name not in (FIRST, LAST, SEED):
                shared[dial.name] = value
                for each in own:  # or its own value would come before the common one
                    each.pop(dial.name, None)
        if FIRST in point:
            scale, ends = _number(shared.get("lambda", 1.0)), (point[FIRST], point[LAST])
            if ends != (1.0, 1.0):
                shared["lambda"] = tuple(round(scale * float(share), 4) for share in (ends[0], 1.0, ends[1]))
        experts = tuple(replace(e, parameters=tuple(p.items())) for e, p in zip(self.recipe.experts, own, strict=True))
        return replace(
            self.recipe, experts=experts, parameters=tuple(shared.items()), name="", note="",
            seed=int(point.get(SEED, self.recipe.seed)),
            locks=(*self.recipe.locks, *self._held(point)),
        )  # fmt: skip

    def seeds(self, presets: Sequence[Recipe] = ()) -> list[Point]:
        """Where a search begins: the recipe, each expert alone, all alike, and presets of the same method."""
        weights = [dial.name for dial in self.dials if dial.expert is not None]
        found: list[Point] = [self.start]
        found += [{**self.start, **{name: float(name == one) for name in weights}} for one in weights]
        found += [{**self.start, **dict.fromkeys(weights, 1.0)}] if weights else []
        for model in dict.fromkeys(word for dial in self.dials for word in dial.choices):
            found.append({**self.start, **{dial.name: model for dial in self.dials if dial.choices}})
        if not self.blocks:
            alike = [p for p in presets if p.method == self.recipe.method and len(p.experts) == len(weights)]
            found += [replace(self, recipe=preset).start for preset in alike]
        return [point for i, point in enumerate(found) if point not in found[:i]]

    def _held(self, point: Point) -> Iterator[Lock]:
        models = {expert.name: expert.model for expert in self.recipe.experts}
        for name, patterns in self.blocks.items():
            if point[name] != MERGED:
                yield Lock(models.get(str(point[name]), "base"), patterns)

    def _written(self, dial: Dial, method: Method) -> Setting:
        shared, key = dict(self.recipe.parameters), dial.name
        if dial.expert is not None:
            return dict(self.recipe.experts[dial.expert].parameters).get("weight", shared.get("weight", 1.0))
        knob = method.knob(key)
        own = [dict(expert.parameters)[key] for expert in self.recipe.experts if key in dict(expert.parameters)]
        return own[0] if own else shared.get(key, knob.default if knob else 1.0)


def knob_space(recipe: Recipe) -> Space:
    """Weights, the method's main numbers, and how strong the first and the last layers are beside the middle.

    Lambda is among them only where no weight says the same. Raises UserError where nothing is left to turn.
    """
    method = METHODS[recipe.method]
    weights = _weights(recipe, WEIGHT.high) if method.uses_weight else []
    scale = method.knob("lambda")
    numbers = [k for k in method.numbers(dict(recipe.parameters)) if k is not scale or _is_free(method, recipe)]
    dials = [*weights, *(Dial(k.key, k.low, k.high, k.step) for k in numbers)]
    dials += [Dial(name, *_LAYERS) for name in (FIRST, LAST)] if scale else []
    if not dials:
        raise UserError("E_SEARCH", f"`{method.id}` has no number that a search could turn.", where="merge_method",
                        do="Choose another method, or search blocks.")  # fmt: skip
    return Space(recipe, tuple(dials), {})


def share_space(recipe: Recipe) -> Space:
    """The weights alone, as shares of one model."""
    if not METHODS[recipe.method].uses_weight:
        raise UserError("E_SEARCH", f"`{recipe.method}` takes no weights to sweep.", where="merge_method",
                        do="Use rewarded_soup.")  # fmt: skip
    return Space(recipe, tuple(_weights(recipe, 1.0)), {})


def roll_space(recipe: Recipe) -> Space:
    """The seed alone: other draws of the same merge."""
    if not METHODS[recipe.method].random:
        raise UserError("E_SEARCH", f"`{recipe.method}` draws nothing at random.", where="merge_method",
                        do="Use m3, DARE or DELLA.")  # fmt: skip
    return Space(recipe, (Dial(SEED),), {})


def block_space(recipe: Recipe, tensors: Sequence[str]) -> Space:
    """Each of at most eight groups of layers is merged, or taken from the base or from one expert as it is.

    (The choices of Reinforced Model Merging without its agent: a sampler learns them.)
    """
    names = [expert.name for expert in recipe.experts]
    by_layer: dict[int, list[str]] = {}
    for tensor in tensors:
        if (layer := layer_of(tensor)) is not None:
            pattern = tensor.split(f".{layer}.")[0] + f".{layer}.*"
            by_layer.setdefault(layer, []).append(pattern)
    if not by_layer or len(set(names)) < len(names) or {MERGED, "base"} & set(names):
        raise UserError("E_SEARCH", "Blocks need layers, and experts whose names differ from each other and from base.",
                        where="models", do="Search the knobs instead.")  # fmt: skip
    layers, choices = sorted(by_layer), (MERGED, "base", *names)
    n = min(_MOST_BLOCKS, len(layers))
    groups = [layers[i * len(layers) // n : (i + 1) * len(layers) // n] for i in range(n)]
    words = [f"layers {g[0]} to {g[-1]}" if len(g) > 1 else f"layer {g[0]}" for g in groups]
    patterns = [tuple(dict.fromkeys(p for layer in group for p in by_layer[layer])) for group in groups]
    return Space(recipe, tuple(Dial(w, choices=choices) for w in words), dict(zip(words, patterns, strict=True)))


def _weights(recipe: Recipe, high: float) -> list[Dial]:
    names = [expert.name for expert in recipe.experts]
    shown = [f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    return [
        Dial(f"weight {name}", 0.0, high, WEIGHT.step, expert=i)
        for i, (name, expert) in enumerate(zip(shown, recipe.experts, strict=True))
        if not recipe.is_base(expert.model)
    ]


def _is_free(method: Method, recipe: Recipe) -> bool:
    """Whether the scale says what the weights do not: where there are none, or where they are divided by their sum."""
    knob: Knob | None = method.knob("normalize")
    return not method.uses_weight or bool(knob and dict(recipe.parameters).get("normalize", knob.default))


def _number(setting: Setting | Any) -> float:
    """The mean of a list over depth; the last of several cases."""
    if isinstance(setting, tuple):
        numbers = [item for item in setting if isinstance(item, (int, float))]
        return sum(numbers) / len(numbers) if numbers else _number(getattr(setting[-1], "value", 1.0))
    return float(setting) if isinstance(setting, (int, float)) else 1.0
