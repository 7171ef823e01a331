"""A model as a recipe names it: a folder, a Hub id, or a base with an adapter."""

from pathlib import Path

from merging.checkpoint import Checkpoint, open_checkpoint


def open_model(source: str, folder: Path) -> Checkpoint:
    """Open a recipe's model from its headers; relative folders lie beside `folder`. Raises UserError."""
    return open_checkpoint(source, folder)
