"""A merge method is one function; its keyword arguments describe their own sliders.

`@merge_method` turns the function into a `Method`: title, paper, one-sentence summary, space and knobs, read from
the signature. The page's controls, range checks, command-line table, README table and contract tests all derive
from it. This file knows no method by name (see `merging/methods/`).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

Kind = Literal["number", "switch", "choice", "globs"]
Value = float | bool | str | tuple[str, ...]
Space = Literal["delta", "weights", "factors", "either"]
Moves = Literal["diagonal", "fold", "factors"]
Calibrated = Literal["", "own", "merged", "learned", "gradients"]


@dataclass(frozen=True)
class Paper:
    """Where a method comes from; `arxiv` is an id such as 2306.01708."""

    title: str
    arxiv: str
    year: int

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"


@dataclass(frozen=True)
class Knob:
    """One setting of a method.

    `default` is what an omitted key means (mergekit's meaning); `screen` is what the page writes into a new recipe.
    `low`..`high` is the slider's range; where `strict` is set, files must keep to it as well.
    """

    kind: Kind
    label: str
    help: str
    default: Value
    screen: Value
    low: float = 0.0
    high: float = 1.0
    step: float = 0.01
    strict: bool = True
    per_expert: bool = False
    choices: tuple[str, ...] = ()
    first: bool = False  # shown at once; the other knobs wait under "more"
    moves: Moves = "factors"  # what a change makes stale at worst in a spectral method
    scales: tuple[str, ...] = ()  # a choice's key, then its values with which a change moves the diagonal alone
    needs: tuple[str, ...] = ()  # a choice's key, then its values with which the knob does something; empty: with any
    key: str = ""  # the recipe's name for it, filled in by the decorator

    def acts(self, settings: Mapping[str, Any]) -> bool:
        """Whether it does something beside these settings of its method, which may differ by layer or tensor."""
        choice = settings.get(self.needs[0]) if self.needs else None
        return not self.needs or isinstance(choice, tuple) or choice in self.needs[1:]


def Number(
    low: float,
    high: float,
    step: float,
    default: float,
    label: str,
    help: str,
    *,
    screen: float | None = None,
    strict: bool = True,
    per_expert: bool = False,
    first: bool = False,
    moves: Moves = "factors",
    scales: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
) -> Knob:
    return Knob(
        "number",
        label,
        help,
        default,
        default if screen is None else screen,
        low,
        high,
        step,
        strict,
        per_expert,
        first=first,
        moves=moves,
        scales=scales,
        needs=needs,
    )


def Switch(default: bool, label: str, help: str, *, screen: bool | None = None) -> Knob:
    return Knob("switch", label, help, default, default if screen is None else screen)


def Choice(
    choices: Sequence[str], label: str, help: str, *, screen: str | None = None, moves: Moves = "factors",
    scales: tuple[str, ...] = (),
) -> Knob:  # fmt: skip
    """The first choice is the default."""
    default, shown = choices[0], screen or choices[0]
    return Knob("choice", label, help, default, shown, choices=tuple(choices), moves=moves, scales=scales)


def Globs(label: str, help: str, *, screen: tuple[str, ...] = ()) -> Knob:
    return Knob("globs", label, help, (), screen)


# The two settings that many methods share, defined once.
WEIGHT = replace(
    Number(
        -2.0, 2.0, 0.05, 1.0, "Weight", "How much of this expert goes in.",
        strict=False, per_expert=True, moves="diagonal",
    ),
    key="weight",
)  # fmt: skip


def Lambda(high: float = 2.0, *, screen: float = 1.0) -> Knob:
    help = "Distance from the base; 1 is as merged."
    return Number(0.0, high, 0.05, 1.0, "Scale λ", help, screen=screen, strict=False, first=True, moves="diagonal")


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a method says of itself beside its knobs.

    space: what the first argument holds. "delta": (T, *shape) float32 expert minus base; "weights": (T, *shape) the
    models themselves; "factors": `spectral.Factors` of one matrix (other tensors take the weighted mean); "either":
    deltas where the recipe has a base, else the models.
    experts: how few and how many models it takes, the base not counted but where `base_first` makes it the first.
    uses_weight: it reads `weight`. keeps_zero: an expert with weight 0 stays (else it is left out before the call).
    shares: the weights are shares of one model: the plan refuses negative ones, and all of them 0.
    takes_base: the function gets the base's own tensor as `base`.
    random: the function takes `bits`: `bits(t)` gives expert t's reproducible uniform numbers in [0, 1) of the
    tensor's shape, `bits(t, once=True)` its one number for the whole merge.
    draws: `draws(bits, **knobs) -> Tensor (T,)`, each model's share for its one number in `bits`, for the page to say.
    triplets: of the factors it reads leading triplets, spectra and single deltas, never the stack of all deltas.
    diagonal: of a method whose result is `spectral.fold`'s, `diagonal(factors, weights, **knobs)`: the numbers that it
    multiplies each expert's singular values by, and the mean weight that it gives each expert's entries, if it changes
    any; of the factors it reads single deltas at most. A move of weights or scale then takes all matrices at once
    (`merging/diagonal.py`).
    across: `across(read, **knobs) -> Tensor | None`, a statistic of the matrix whose factors `read()` gives, or None
    without reading them where its knobs need none; the function receives the maximum over the matrices as `peak`.
    blocks: an entry of the result depends on the same entry of each input ("flat"), or on its row of the first axis
    ("rows"), and on nothing else: the engine then calls the function on blocks that fit the processor's cache.
    measure: but for `measure(blocks, **knobs)` (`merging.blocks.Blocks`), what it must know of the whole tensor. The
    function receives it as `known`, moved by `known.at(start)` to the block's first flat index, and finds it by itself
    where it gets none. magnitudes: it reads `blocks.counts`, which may be kept from an earlier look at the family.
    calibrated: it needs the recipe's `calibration`, measured on the experts' own streams ("own", or "gradients", which
    has their gradients too) or on the merged one ("merged"): the function gets what that says of the tensor as
    `inputs` (`merging.calibration.Inputs`).
    gate: `gate(stack, **knobs) -> Tensor (T,)`, what the function holds against its knob `tau`: it changes an expert's
    matrix where that is below; NaN for an expert that it never changes. For pictures.
    """

    title: str
    paper: Paper
    note: str = ""
    space: Space = "delta"
    experts: tuple[int, int] = (1, 64)
    uses_weight: bool = True
    shares: bool = False
    base_first: bool = False
    takes_base: bool = False
    keeps_zero: bool = False
    random: bool = False
    draws: Callable[..., Any] | None = None
    triplets: bool = False
    diagonal: Callable[..., Any] | None = None
    across: Callable[..., Any] | None = None
    blocks: Literal["", "flat", "rows"] = ""
    measure: Callable[..., Any] | None = None
    magnitudes: bool = False
    calibrated: Calibrated = ""
    gate: Callable[..., Any] | None = None
    version: int = 1


@dataclass(frozen=True, kw_only=True)
class Method(Traits):
    """A merge method and everything the page, the command line and the tests need to know of it."""

    id: str
    summary: str
    knobs: tuple[Knob, ...]
    fn: Callable[..., Any]

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self.fn(*args, **settings)

    def knob(self, key: str) -> Knob | None:
        return next((knob for knob in self.knobs if knob.key == key), None)

    def numbers(self, written: Mapping[str, Any]) -> list[Knob]:
        """The main ones, which do something beside the settings that a recipe has written."""
        settings = {knob.key: knob.default for knob in self.knobs} | dict(written)
        return [knob for knob in self.knobs if knob.kind == "number" and knob.first and knob.acts(settings)]

    def space_with(self, base: str | None) -> Space:
        """What the first argument holds in a recipe with this base (None: without one)."""
        if self.space == "either":
            return "delta" if base else "weights"
        return self.space

    @property
    def spectral(self) -> bool:
        return self.space == "factors"


class merge_method(Traits):
    """Makes the function below a merge method named after it, with these traits."""

    def __call__(self, fn: Callable[..., Any]) -> Method:
        summary = inspect.cleandoc(fn.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        if not (self.title and summary):
            raise TypeError(f"method {fn.__name__} needs a title and a docstring")
        knobs = tuple(knobs_of(fn))
        for knob in knobs:
            check_defaults(fn.__name__, knob)
        return Method(**vars(self), id=fn.__name__, summary=summary, knobs=knobs, fn=fn)


def knobs_of(fn: Callable[..., Any]) -> list[Knob]:
    found = []
    for name, hint in get_type_hints(fn, include_extras=True).items():
        if get_origin(hint) is Annotated and isinstance(get_args(hint)[1], Knob):
            knob: Knob = get_args(hint)[1]
            found.append(replace(knob, key=name.rstrip("_")))
    return found


def check_defaults(method: str, knob: Knob) -> None:
    for value in (knob.default, knob.screen):
        if knob.kind == "number" and not (isinstance(value, (int, float)) and knob.low <= value <= knob.high):
            raise TypeError(f"{method}.{knob.key}: {value!r} lies outside {knob.low}..{knob.high}")
        if knob.kind == "choice" and value not in knob.choices:
            raise TypeError(f"{method}.{knob.key}: {value!r} is none of {knob.choices}")
