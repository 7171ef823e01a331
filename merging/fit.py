"""The scale or the experts' weights with which a merge puts out what each expert does on its own text.

From measured inputs, all tokens alike. The weights give the direction: they are fitted by least squares up to their
common length, in one step where a method is linear in them, else in a few. The scale gives the length, which least
squares would make far too short: whatever the experts disturb in each other pulls it towards 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from merging.calibration import Inputs
from merging.errors import UserError
from merging.lewis import HIGH, LOW, lewis
from merging.method import WEIGHT
from merging.methods import METHODS
from merging.plan import make_plan
from merging.recipe import Recipe
from merging.values import value_of

What = Literal["scale", "weights", "densities"]
_REACH = 0.02  # how far a weight is moved to see what the merge makes of it
_STEPS = 5
_LEAST = 1e-4  # what a step must bring


@dataclass(frozen=True, eq=False)
class Outputs:
    """What K deltas put out on the texts of T experts, a token, in float64: squares (T, K, K) `<X_t P_k^T, X_t P_j^T>`,
    own (T, K) `<X_t P_k^T, X_t D_t^T>`, whole (T,) `|X_t D_t^T|^2`. Those of several matrices add up.
    """

    squares: Tensor
    own: Tensor
    whole: Tensor

    def __add__(self, other: "Outputs") -> "Outputs":
        return Outputs(self.squares + other.squares, self.own + other.own, self.whole + other.whole)

    def of(self, mixed: Tensor) -> "Outputs":
        """Those of other deltas `sum_k P_k mixed[k, j]`."""
        return Outputs(mixed.T @ self.squares @ mixed, self.own @ mixed, self.whole)

    def kept(self, x: Tensor) -> Tensor:
        """(T,) the share of its own output that each expert keeps in `sum x_k P_k`; nan where it puts out nothing."""
        return (2 * self.own @ x - (self.squares @ x) @ x) / self.whole.where(self.whole > 0, torch.nan)

    def alignment(self, x: Tensor) -> float:
        """The cosine between what `sum x_k P_k` and what the experts put out, over all tokens; 0 where either is 0."""
        length = float((self.squares.sum(0) @ x) @ x * self.whole.sum()) ** 0.5
        return float(self.own.sum(0) @ x) / length if length > 0 else 0.0


def outputs_of(pieces: Tensor, deltas: Tensor, inputs: Inputs) -> Outputs:
    """Of one matrix: pieces (K, m, n), the experts' deltas (T, m, n)."""
    assert inputs.gram
    pieces, deltas = (x.mT if inputs.transposed else x for x in (pieces, deltas))
    squares, own, whole = [], [], []
    for t, delta in enumerate(deltas):
        gram = inputs.gram(t)
        seen, flat = (pieces @ gram).flatten(1).double(), pieces.flatten(1).double()
        squares.append(seen @ flat.T)
        own.append(seen @ delta.flatten().double())
        whole.append(((delta @ gram) * delta).double().sum())
    return Outputs(torch.stack(squares).cpu(), torch.stack(own).cpu(), torch.stack(whole).cpu())


def solved(outputs: Outputs) -> Tensor:
    """The x (K,), none of it negative, where `sum x_k P_k` is nearest to what the experts put out.

    Of pieces that cannot be told apart the shortest way is taken.
    """
    squares, own = outputs.squares.sum(0), outputs.own.sum(0)
    x, free = torch.zeros_like(own), torch.ones_like(own, dtype=torch.bool)
    while free.any():
        some = free.nonzero()[:, 0]
        x = torch.zeros_like(own)
        x[some] = torch.linalg.pinv(squares[some][:, some], hermitian=True, rtol=1e-6) @ own[some]
        if not (x < 0).any():
            break
        free[x.argmin()] = False  # as in `output_fit`: it leaves, the others go on
    return x.clamp(min=0)


@dataclass(frozen=True)
class Fit:
    """What was found. before and after: each expert's output kept, over all measured matrices together; nan where the
    recipe leaves it out.
    """

    recipe: Recipe
    what: What
    found: tuple[float, ...]  # the scale, the weights in the recipe's order, or the least and the highest density
    before: tuple[float, ...]
    after: tuple[float, ...]
    steps: int  # 1: in closed form


Measure = Callable[[Sequence[Recipe]], Outputs]  # what the merged deltas of these recipes put out


def fit(what: What, recipe: Recipe, measure: Measure) -> Fit:
    if what == "densities":
        return fit_densities(recipe, measure)
    return fit_scale(recipe, measure) if what == "scale" else fit_weights(recipe, measure)


def told(found: Fit) -> str:
    """In one sentence; shares of 100, the mean over the experts and the least of them."""
    numbers = " / ".join(f"{x:g}" for x in found.found)
    way = {0: "no others are nearer", 1: "in closed form"}.get(found.steps, f"in {found.steps} steps")
    was, now = (f"{100 * sum(x) / len(x):.1f} (least {100 * min(x):.1f})".replace("-", "−")
                for x in ([s for s in shares if s == s] for shares in (found.before, found.after)))  # fmt: skip
    if found.what == "densities":
        numbers, way = " to ".join(f"{x:g}" for x in found.found), "by what each layer changes (LEWIS)"
    name = "λ" if found.what == "scale" else found.what
    return f"{name} {numbers}, {way}: output kept was {was}, is {now} of 100, all matrices together."


def fit_scale(recipe: Recipe, measure: Measure) -> Fit:
    """The `lambda` with which the merge puts out as much as the experts: `|X_t P^T|^2 = |X_t D_t^T|^2`, summed over t.

    Within its slider's range, and 0 for a merge that points away from them; a list over depth becomes one number.
    Raises UserError E_FIT.
    """
    knob = METHODS[recipe.method].knob("lambda")
    if knob is None:
        raise UserError("E_FIT", f"`{recipe.method}` has no scale to fit.", do="Choose a method with a scale λ.")
    outputs = _asked(recipe, measure([recipe, _with_scale(recipe, 1.0)]))
    squares, whole = float(outputs.squares.sum(0)[1, 1]), float(outputs.whole.sum())
    agrees = float(outputs.own.sum(0)[1]) > 0
    best = round(min(max((whole / squares) ** 0.5 if agrees else 0.0, knob.low), knob.high), 3)
    before, after = (outputs.kept(torch.tensor(x).double()) for x in ([1.0, 0.0], [0.0, best]))
    return Fit(_with_scale(recipe, best), "scale", (best,), _plain(before), _plain(after), 1)


def fit_densities(recipe: Recipe, measure: Measure) -> Fit:
    """Densities by layer (`merging/lewis.py`): no search, whatever the merge then keeps."""
    made = lewis(make_plan(recipe))
    alone = torch.ones(1).double()
    before, after = (_asked(recipe, measure([one])).kept(alone) for one in (recipe, made))
    return Fit(made, "densities", (LOW, HIGH), _plain(before), _plain(after), 1)


def fit_weights(recipe: Recipe, measure: Measure) -> Fit:
    """The weights with the best alignment, none negative or beyond the slider, of the experts that have one above 0.

    Their sum and the scale stay. A method that is linear in them is done in one step. Otherwise each step goes by what
    a small move of every weight does, and is taken only where the alignment then is better.
    """
    if not METHODS[recipe.method].uses_weight:
        raise UserError("E_FIT", f"`{recipe.method}` has no weights to fit.", do="Choose a method with weights.")
    now = torch.tensor(_weights(recipe)).double()
    moving = (now > 0).nonzero()[:, 0].tolist()
    if not moving:
        raise UserError("E_FIT", "No expert has a weight above 0.", do="Give the experts a weight.")

    def put_out(*recipes: Recipe) -> Outputs:
        return _asked(recipe, measure(recipes))

    one = torch.ones(1).double()
    first = last = put_out(recipe)
    best, steps = recipe, 0
    for _ in range(_STEPS):
        reach = (now[moving] / 2).clamp(max=_REACH)  # never down to 0, where an expert is not there
        moves = [(k, sign * float(h)) for k, h in zip(moving, reach, strict=True) for sign in (1, -1)]
        nearby = [_with_weights(best, now + step * torch.eye(len(now))[k]) for k, step in moves]
        outputs = put_out(_with_weights(best, now), *nearby).of(_pieces(moves, now[moving]))
        aim = solved(outputs)
        if not aim.any():  # there is no merge of nobody
            break
        way = aim * (now[moving].sum() / aim.sum()) - now[moving]
        for share in (1.0, 0.5, 0.25):
            tried = now.clone()
            tried[moving] = (now[moving] + share * way).clamp(0, WEIGHT.high).mul(1000).round() / 1000
            found = put_out(_with_weights(best, tried))
            if found.alignment(one) > last.alignment(one) + _LEAST:
                break
        else:
            break
        foretold = outputs.alignment(tried[moving])
        best, now, last, steps = _with_weights(best, tried), tried, found, steps + 1
        if abs(foretold - found.alignment(one)) < _LEAST and share == 1.0:
            break
        moving = [k for k in moving if now[k] > 0]  # an expert that has left changes what the method counts
    return Fit(best, "weights", tuple(now.tolist()), _plain(first.kept(one)), _plain(last.kept(one)), steps)


def _pieces(moves: Sequence[tuple[int, float]], now: Tensor) -> Tensor:
    """(1 + moves, K) that makes pieces `Q_k = J_k + (P - sum w_j J_j) / sum w` of the merge P and its moves.

    J_k is half the difference of a move up and one down (two a weight), for a weight of 1 more. Where the weights w
    keep their sum, `P + sum (v_k - w_k) J_k = sum v_k Q_k`: the merge as if it were linear.
    """
    slopes = torch.zeros(1 + len(moves), len(now)).double()
    for i, (_, step) in enumerate(moves):
        slopes[1 + i, i // 2] = 0.5 / step
    rest = -(slopes @ now)
    rest[0] += 1
    return slopes + rest[:, None] / now.sum()


def _asked(recipe: Recipe, outputs: Outputs) -> Outputs:
    """Without the texts of experts that the recipe leaves out or takes away: nothing of theirs is to be kept."""
    of = {e.model: w for e, w in zip(recipe.experts, _weights(recipe), strict=True)}
    used = torch.tensor([of[e.model] > 0 or not METHODS[recipe.method].uses_weight for e in recipe.beside_base])
    if not used.any():
        raise UserError("E_FIT", "No expert has a weight above 0.", do="Give the experts a weight.")
    found = Outputs(outputs.squares * used[:, None, None], outputs.own * used[:, None], outputs.whole * used)
    if not (found.whole > 0).any():
        what = "The experts put out nothing of their own: on their texts they do what the base does."
        raise UserError("E_FIT", what, do="Give experts that differ from the base.")
    return found


def _weights(recipe: Recipe) -> list[float]:
    shared = dict(recipe.parameters).get("weight", 1.0)
    return [float(value_of(dict(e.parameters).get("weight", shared), 1.0)) for e in recipe.experts]  # pyright: ignore


def _plain(shares: Tensor) -> tuple[float, ...]:
    return tuple(shares.tolist())


def _with_scale(recipe: Recipe, scale: float) -> Recipe:
    parameters = {**dict(recipe.parameters), "lambda": scale}
    return replace(recipe, parameters=tuple(parameters.items()), name="", note="")


def _with_weights(recipe: Recipe, weights: Tensor) -> Recipe:
    experts = (
        replace(e, parameters=tuple({**dict(e.parameters), "weight": round(float(w), 6)}.items()))
        for e, w in zip(recipe.experts, weights, strict=True)
    )
    return replace(recipe, experts=tuple(experts), name="", note="")
