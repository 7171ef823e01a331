"""Which layer a tensor belongs to and whether it is a matrix, told from its name and shape alone."""

import re
from collections.abc import Collection, Sequence

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks|block|h)\.(\d+)\.")
_EMBEDDING = re.compile(r"emb|(?:^|\.)(?:wte|wpe)\.")


def layer_of(name: str) -> int | None:
    """Index of the layer a tensor belongs to; None for embeddings, final norm and head."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor has directions: two-dimensional, larger than 1 both ways, and no bias."""
    return len(shape) == 2 and min(shape) > 1 and not name.endswith("bias")


def layer_count(names: Collection[str]) -> int:
    return max((layer + 1 for name in names if (layer := layer_of(name)) is not None), default=0)


def depth_of(layer: int | None, n_layers: int) -> float:
    """0 first layer .. 1 last; embeddings, final norm and head count as 0, an only layer as 1 (mergekit's goldens)."""
    if layer is None:
        return 0.0
    return layer / (n_layers - 1) if n_layers > 1 else 1.0


def at_layer(name: str, layer: int) -> str:
    """The name of the same tensor in another layer."""
    return _LAYER.sub(lambda found: f"{name[found.start() : found.start(1)]}{layer}.", name, count=1)


def comes_first(name: str) -> bool:
    """Of a tensor outside the layers: whether it stands before them (embeddings), not after (final norm, head)."""
    return bool(_EMBEDDING.search(name)) and "embed_out" not in name
