"""A shaper changes the strengths in a delta, before or after any method; like a method it is one function.

`@shaper` reads its knobs from the signature; in a recipe they are prefixed with its name: `svc_alpha`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from merging.method import Knob, Paper, check_defaults, knobs_of

Sees = Literal["expert", "spectrum", "matrix"]


@dataclass(frozen=True)
class Shaper:
    """A shaper and what the page, the command line and the tests need to know of it."""

    id: str
    title: str
    paper: Paper
    summary: str
    sees: Sees
    knobs: tuple[Knob, ...]
    fn: Callable[..., Any]
    calibrated: bool = False  # it needs the recipe's `calibration`
    version: int = 1  # goes up when the same settings give other numbers

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self.fn(*args, **settings)

    def settings(self, resolved: Mapping[str, Any]) -> dict[str, Any]:
        """Its keyword arguments, from a tensor's settings by recipe key."""
        return {knob.key.removeprefix(f"{self.id}_"): resolved[knob.key] for knob in self.knobs}


def shaper(
    *, title: str, paper: Paper, sees: Sees, calibrated: bool = False, version: int = 1
) -> Callable[[Callable[..., Any]], Shaper]:
    """Register the function below as a shaper named after it.

    sees: "spectrum": `fn(merged: SVD, experts: Factors) -> s`, new singular values for the real directions of the
    merged delta. "expert": the same for one expert's delta before the merge; directions that get 0 are gone.
    "matrix": `fn(merged, experts) -> Tensor`. The merged delta comes before the scale lambda. experts: their deltas,
    each times its weight over the mean magnitude of the weights, so that equal weights leave them as they are.
    calibrated: the function also gets what the recipe's calibration says of the matrix, as `inputs`
    (`merging.calibration.Inputs`).
    """

    def decorate(fn: Callable[..., Any]) -> Shaper:
        summary = inspect.cleandoc(fn.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        if not (title and summary):
            raise TypeError(f"shaper {fn.__name__} needs a title and a docstring")
        knobs = tuple(replace(knob, key=f"{fn.__name__}_{knob.key}") for knob in knobs_of(fn))
        for knob in knobs:
            check_defaults(fn.__name__, knob)
        return Shaper(fn.__name__, title, paper, summary, sees, knobs, fn, calibrated, version)

    return decorate
