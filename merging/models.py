"""A model as a recipe names it: a folder, a Hub id, or a base with an adapter."""

from pathlib import Path

from merging.checkpoint import Checkpoint, open_checkpoint
from merging.hub import Hub
from merging.remote import fetch_headers


def open_model(source: str, folder: Path, hub: Hub | None = None) -> Checkpoint:
    """Open a recipe's model from its headers; relative folders lie beside `folder`. Raises UserError.

    With a `hub`, the headers of a Hub model that is not on this machine are fetched first.
    """
    if hub:
        fetch_headers(source, folder, hub)
    return open_checkpoint(source, folder)
