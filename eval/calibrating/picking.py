"""Which of many texts to measure with: those of usual length that repeat little and that the base finds neither odd
nor trivial. What Meta-rater does with four raters, for calibration and without them.
"""

from collections.abc import Sequence
from math import log
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import nn

from eval.calibrating.texts import Text, most_read, token_ids
from eval.running.runtime import encode, render, use_cores

if TYPE_CHECKING:
    from eval.running.models import Model

_GRAM = 3  # tokens in a row that count as said again


def picked(base: "Model", texts: Sequence[Text], n: int) -> list[Text]:
    """That many of one expert's texts, in their order. Whether they are answered yet does not count."""
    ids = [_read(base, text)[: most_read(base)] for text in texts]
    usual = [log(max(len(one), 1)) for one in ids]
    surprise = _surprises(base, ids)
    measures = [_off(usual), [repetition(one) for one in ids], _off(surprise)]
    return [texts[i] for i in best(measures, n)]


def best(measures: Sequence[Sequence[float]], n: int) -> list[int]:
    """The n texts whose worst measure is least bad, each by the share of texts that are better in it; in order."""
    worst = [max(sum(other < value for other in one) for one, value in zip(measures, row, strict=True))
             for row in zip(*measures, strict=True)]  # fmt: skip
    return sorted(sorted(range(len(worst)), key=lambda i: (worst[i], i))[:n])


def repetition(ids: Sequence[int]) -> float:
    """The share of three tokens in a row that the text has had before."""
    grams = [tuple(ids[i : i + _GRAM]) for i in range(len(ids) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _off(values: Sequence[float]) -> list[float]:
    """How far from their median, either way."""
    usual = median(values)
    return [abs(value - usual) for value in values]


@torch.inference_mode()
def _surprises(base: "Model", texts: Sequence[Sequence[int]]) -> list[float]:
    """The log of the base's perplexity of each."""
    use_cores(base.module)
    found = []
    for text in texts:
        ids = torch.tensor([text], device=base.module.device)
        logits = base.module(input_ids=ids, use_cache=False).logits[0, :-1].float() if len(text) > 1 else None
        found.append(float(nn.functional.cross_entropy(logits, ids[0, 1:])) if logits is not None else 0.0)
    return found


def _read(base: "Model", text: Text) -> list[int]:
    if text.is_open:
        return encode(base.tokenizer, *render(base.tokenizer, text.conversation()))
    return token_ids(base.tokenizer, text)
