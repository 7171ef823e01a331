"""Three ways to mix the experts' data for one model: the other answer to "mix data or merge models?".

All draw from one pool, a third of it from each expert's data, and keep the same number of examples:

- fixed ratio: the first ones, conflicts included;
- reward-scored selection: those of the highest reward. The paper's reward is a model's; Town's is exact: 1 where the
  answer is the one that a probe of its kind wants, else 0;
- low-conflict selection: those on which the trained experts disagree least, by how far apart the mean log-likelihoods
  per token are that the three give to the answer.
"""

import random
from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from assets.town.mixes import MIXES, Example, examples
from assets.town.train import Ids, batch_of
from eval.judging.probes import H

POOL = 1.5  # examples drawn for one that is kept


def draw_pool(kept: int, seed: int) -> list[Example]:
    """Examples of all three experts in random order, POOL for each that will be kept."""
    rng = random.Random(f"{seed} mixture")
    third = int(kept * POOL) // len(H)
    drawn = [example for h in H for example in examples(MIXES[h], third, rng)]
    rng.shuffle(drawn)
    return drawn


def best(pool: Sequence[Example], cost: Sequence[float], kept: int) -> list[Example]:
    """The `kept` examples of least cost, of equals those drawn earlier; in the order in which they were drawn."""
    return [pool[i] for i in sorted(sorted(range(len(pool)), key=lambda i: cost[i])[:kept])]


@torch.inference_mode()
def log_likelihoods(model: PreTrainedModel, encoded: Sequence[Ids], size: int = 256) -> torch.Tensor:
    """Mean log-likelihood per answer token, (examples,)."""
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i][0]))
    found = torch.empty(len(encoded))
    head = model.get_output_embeddings()
    assert head is not None
    for at in range(0, len(order), size):
        rows = order[at : at + size]
        tokens, learned = batch_of([encoded[i] for i in rows])
        answer = learned[:, 1:]
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][answer]
        loss = functional.cross_entropy(head(hidden).float(), tokens[:, 1:][answer], reduction="none")
        row_of = answer.nonzero()[:, 0]
        sums = torch.zeros(len(rows)).index_add(0, row_of, -loss)
        found[rows] = sums / answer.sum(1)
    return found


def disagreement(likelihoods: torch.Tensor) -> list[float]:
    """How far the experts are apart on each example, (examples,), from (experts, examples)."""
    return (likelihoods.amax(0) - likelihoods.amin(0)).tolist()
