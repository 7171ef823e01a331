"""A model as a recipe names it: a folder, a Hub id, or a base with an adapter."""

from dataclasses import replace
from pathlib import Path

from merging.adapter import open_adapter
from merging.adapter_config import AdapterConfig, is_adapter, read_config
from merging.checkpoint import Checkpoint, open_checkpoint
from merging.errors import UserError, all_of
from merging.hub import Hub
from merging.hub_cache import local_model
from merging.remote import fetch_headers, hub_parts
from merging.sources import find_folder, split_source


def open_model(source: str, folder: Path, hub: Hub | None = None, base: str | None = None) -> Checkpoint:
    """Open a recipe's model from its headers; relative folders lie beside `folder`. Raises UserError.

    An adapter without `base+` lies over the base that its adapter_config.json names, else over the recipe's `base`.
    With a `hub`, the headers of a Hub model that is not on this machine are fetched first.
    """
    if hub:
        fetch_headers(source, folder, hub)
    below, last = split_source(source, folder)
    home = find_folder(last, folder)
    if below is None and not is_adapter(home):
        return open_checkpoint(source, folder)
    problems: list[UserError] = []
    config, over, assumed = read_config(home, source, problems), None, ()
    try:
        if below is not None:
            over = open_model(below, folder, hub, base)
        elif config is not None:
            over, assumed = _base_of(config, source, folder, hub, None if base == source else base)
    except UserError as error:
        problems.append(error)
    if config is None or over is None:
        raise all_of(problems, kept="")
    model = open_adapter(source, home, config, over)
    return replace(model, notices=(*model.notices, *assumed))


def written_out(source: str, folder: Path) -> str:
    """An adapter that is named alone as `base+adapter`, where its own files name a Hub model that this machine knows.

    All other sources stay as they are.
    """
    try:
        below, last = split_source(source, folder)
        home = find_folder(last, folder)
        config = read_config(home, source, []) if below is None and is_adapter(home) else None
    except UserError:  # told by whoever opens it
        return source
    base = config.base if config else None
    return f"{base}+{source}" if base and hub_parts(base, folder) == [base] and local_model(base) else source


def _base_of(
    config: AdapterConfig, source: str, folder: Path, hub: Hub | None, base: str | None
) -> tuple[Checkpoint, tuple[str, ...]]:
    """The model below an adapter that is named alone, and a notice of which one was taken."""
    if base is not None and config.base == base:
        return open_model(base, folder, hub), ()
    why = "its adapter_config.json names no base"
    if config.base:
        try:
            if hub:
                fetch_headers(config.base, folder, hub)
            over = open_checkpoint(config.base, folder)
            return over, (f"{source}: taken over {config.base}, the base that its adapter_config.json names.",)
        except UserError as error:
            why = f"the base that its adapter_config.json names cannot be opened ({error.where}: {error.what})"
    if base is None:
        raise UserError("E_ADAPTER_BASE", f"{why}.", where=source, do="Write `base+adapter`.")
    return open_model(base, folder, hub), (f"{source}: taken over the recipe's base, for {why}.",)
