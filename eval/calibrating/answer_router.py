"""Chat's Router: which expert answers a question whole.

By the ridge classifier of `router.py` where there are prompts of every expert's own skill; else by what of the
question lies in the directions that each expert's matrices act on, which needs no prompts and is less sure.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eval.calibrating.router import Conversation, Router, fit_router
from eval.calibrating.texts import FOLDER, ROUTED, read_for
from eval.running.chat import Routing
from eval.running.runtime import encode, render, use_cores
from eval.running.side_path import readers
from eval.running.smile import Triplets
from merging.checkpoint import Checkpoint
from merging.decompose import SVD
from merging.errors import UserError
from merging.stage import names_in

if TYPE_CHECKING:
    from eval.running.models import Model

BY_DIRECTIONS = "how much of the question lies in each expert's directions: less sure than by prompts"
GATE = 16  # leading directions of an expert that a question is held against
Prompts = Mapping[str, Sequence[Conversation]]
Fits = dict[Path, tuple[Tensor, Tensor, Tensor]]  # what a router learnt from a file, without the base's module


def route(
    name: str,
    base: "Model",
    experts: Mapping[str, Checkpoint],
    question: Conversation,
    files: Sequence[Path],
    fits: Fits,
    triplets: Callable[[int], Triplets],
) -> Routing:
    """The choice for the column `name`. files: where prompts of these experts may lie, the first that has some counts;
    `triplets(k)` are asked for only where none has.
    """
    names = list(experts)
    for file in files:
        if prompts := prompts_of(file, experts):
            if file not in fits:
                made = fit_router(base, prompts)
                fits[file] = made.mean, made.spread, made.weights
            (found,) = Router(base, tuple(names), *fits[file]).routes([question])
            how = f"ridge classifier on {sum(map(len, prompts.values()))} prompts ({file.stem})"
            return Routing(name, how, dict(zip(names, found.shares, strict=True)), found.expert)
    shares = direction_shares(base, triplets(GATE), question)
    best = names[max(range(len(names)), key=shares.__getitem__)]
    return Routing(name, BY_DIRECTIONS, dict(zip(names, shares, strict=True)), best)


def files_of(calibration: Path | None) -> list[Path]:
    """Those of a measurement of these very experts, then Town's."""
    return [*([calibration / "texts.jsonl"] if calibration else []), FOLDER / "town.jsonl"]


def prompts_of(file: Path, experts: Mapping[str, Checkpoint]) -> Prompts | None:
    """Of every expert, of one that is a merge those of the experts in it; None where one has none there, or two have
    the same.
    """
    groups = [set(names_in(expert)) for expert in experts.values()]
    if len(set.union(*groups)) < sum(map(len, groups)):
        return None
    try:
        found = read_for(str(file), list(experts.values()), ROUTED)
    except UserError:
        return None
    return {name: [text.question() for text in own] for name, own in zip(experts, found, strict=True)}


@torch.inference_mode()
def direction_shares(base: "Model", triplets: Triplets, question: Conversation) -> list[float]:
    """Each expert's share, which sum to 1: of the base's inputs x to its matrices `|V^T x|^2 / |x|^2`, the mean over
    tokens and matrices. V (n, k) are the leading right singular vectors of the expert's delta; all have as many.
    """
    use_cores(base.module)
    found: list[Tensor] = []

    def look(parts: Sequence[SVD], layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0][0].double()
        k = min(int((part.s > 0).sum()) for part in parts)
        sides = [part.u if type(layer) is Conv1D else part.v for part in parts]  # Conv1D's weight is transposed
        inside = [(x @ side[:, :k].to(x)).square().sum(-1) for side in sides]
        found.append(torch.stack(inside, -1).div(x.square().sum(-1, keepdim=True)).mean(0))

    layers = readers(base.module, triplets)
    hooks = [
        layer.register_forward_pre_hook(partial(look, triplets[name])) for name, own in layers.items() for layer in own
    ]
    try:
        ids = encode(base.tokenizer, *render(base.tokenizer, question))
        base.module(input_ids=torch.tensor([ids], device=base.module.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    total = torch.stack(found).mean(0) if found else torch.zeros(0)
    if not float(total.sum()) > 0:
        raise UserError(
            "E_ROUTER",
            "The question tells no expert from the others: nothing of it meets what they changed.",
            do="Measure the experts with prompts of their own, or switch the router off.",
        )
    return (total / total.sum()).tolist()
