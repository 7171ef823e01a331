"""A merge whose matrices are not written yet, for whoever can answer with less."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from merging.spectral import Fold


@dataclass(frozen=True)
class Folded:
    """The merge of `digest` by tensor name: base plus fold, or the merged tensor itself in its output dtype."""

    digest: str
    folds: Mapping[str, Fold]
    rest: Mapping[str, Tensor]
