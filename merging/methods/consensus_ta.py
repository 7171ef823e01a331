from typing import Annotated

from torch import Tensor

from merging.masks import agreement_mask
from merging.method import Lambda, Number, Paper, merge_method
from merging.ops import column

LAM = Number(
    0.0, 2.0, 0.05, 0.4, "Strictness", "Higher: fewer entries count for an expert.", per_expert=True, first=True
)
K = Number(0, 8, 1, 2, "Agreement k", "Experts that must share an entry to keep it.", first=True)
PAPER = Paper("Localizing Task Information for Improved Model Merging and Compression", "2405.07813", 2024)


@merge_method(title="Consensus TA", paper=PAPER, experts=(2, 64), blocks="flat")
def consensus_ta(
    deltas: Tensor,
    weights: Tensor,
    *,
    lam: Annotated[Tensor, LAM],
    k: Annotated[float, K],
    lambda_: Annotated[float, Lambda(screen=0.3)],
) -> Tensor:
    """Adds the deltas, then keeps only the entries that several experts use.

    TALL masks `|D_t| > lam_t |M - D_t|` with M the weighted sum, D_t weighted too; entries with at least k masks stay
    (k = 2 drops what no or one expert uses, 1 what none uses, 0 nothing). deltas (T, *shape), lam (T,).
    """
    weighted = deltas * column(weights, deltas)
    merged = weighted.sum(0)
    return lambda_ * merged * agreement_mask(weighted, merged, lam, k)
