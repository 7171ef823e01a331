from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from merging.method import Globs, Lambda, Number, Paper, merge_method
from merging.spectral import Factors, Fold, fold

EXCLUDE = Globs("Plain mean for", "These tensors are averaged instead.", screen=("*embed*", "*lm_head*"))


def diagonal(factors: Factors, weights: Sequence[float], *, lambda_: float, **_: object) -> tuple[list[float], tuple]:
    return [lambda_ * weight for weight in weights], ()


@merge_method(
    title="TSV-M",
    paper=Paper("Task Singular Vectors: Reducing Task Interference", "2412.00081", 2024),
    space="factors",
    triplets=True,
    diagonal=diagonal,
)
def tsv_m(
    factors: Factors,
    weights: Tensor,
    *,
    lambda_: Annotated[float, Lambda(3.0, screen=1.15)],
    exclude: Annotated[tuple[str, ...], EXCLUDE],
    polar_tolerance: Annotated[
        float, Number(0.0, 0.1, 0.001, 0.0, "Polar tolerance", "Drop directions weaker than this share.", moves="fold")
    ],
) -> Fold:
    """Keeps each expert's strongest directions and makes the experts' directions orthogonal to each other.

    Rank `floor(r / T)` per expert, polar factors of the concatenated U and V, `lambda U S V^T`; weights scale an
    expert's singular values. Tensors that are not matrices, and those in `exclude`, take the plain mean.
    """
    k = factors.full_rank // len(factors.deltas)
    parts = [factors.svd(t, k) for t in range(len(factors.deltas))]
    each, _ = diagonal(factors, weights.tolist(), lambda_=lambda_)
    return fold(factors, parts, each, tolerance=polar_tolerance, key="raw")
