"""Which layer a tensor belongs to, told from its name alone."""

import re
from collections.abc import Collection

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks|block|h)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Index of the layer a tensor belongs to; None for embeddings, final norm and head."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def layer_count(names: Collection[str]) -> int:
    return max((layer + 1 for name in names if (layer := layer_of(name)) is not None), default=0)


def depth_of(name: str, n_layers: int) -> float:
    """0 first layer .. 1 last; embeddings, final norm and head count as 0, as in mergekit (its goldens say so)."""
    layer = layer_of(name)
    return 0.0 if layer is None else layer / max(n_layers - 1, 1)
