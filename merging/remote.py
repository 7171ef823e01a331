"""A Hub model that is not downloaded: its texts and its weights' headers, in a folder that opens like any other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from merging.download import fetch, plan_download
from merging.errors import UserError
from merging.hub import Hub, HubFile, Listing, explained, listing, read_range
from merging.hub_cache import HUB_ID, Absent, headers, keep_absent, keep_ref, local_model
from merging.safetensors_header import HEADER_LIMIT
from merging.sources import model_parts


def fetch_headers(source: str, beside: Path, hub: Hub) -> None:
    """Fetch config, tokenizer, card and the headers of the weights; nothing for a model that is on this machine.

    `base+adapter` are two models. Raises UserError; a name that is no Hub id is left to whoever opens it.
    """
    for part in hub_parts(source, beside):
        if local_model(part):
            continue
        try:
            _fetch(part, hub)
        except UserError as error:
            if error.code != "E_OFFLINE":
                raise
            what = f"there is no such folder, no such model in this machine's Hub cache, and {error.what}"
            raise UserError("E_MODEL_MISSING", what, where=part, do=error.do) from None


def hub_parts(source: str, beside: Path) -> list[str]:
    """The Hub ids in a recipe's name of a model: none in a folder, two in `base+adapter`."""
    return [part for part in model_parts(source, beside) if HUB_ID.fullmatch(part) and not (beside / part).exists()]


def _fetch(source: str, hub: Hub) -> None:
    found = listing(source, hub)
    root = headers(found.repo)
    folder = root / "snapshots" / found.commit
    texts, weights = plan_download(found, root, hub)
    for file in texts:
        for _ in fetch(found, file, root, hub):
            pass

    def header_of(file: HubFile) -> None:
        (folder / file.name).write_bytes(_header(found, file, hub))

    _at_once(header_of, weights, source, hub)
    sizes = {file.name: file.size for file in weights}
    n_bytes = sum(file.size for file in (*texts, *weights))
    keep_absent(folder, Absent(n_bytes, sizes, tuple(file.blob for file in weights)))
    keep_ref(root, found.revision, found.commit)


def _header(found: Listing, file: HubFile, hub: Hub) -> bytes:
    """The first bytes of a safetensors file up to its first tensor; of another file enough to tell what it is."""
    url = found.url(hub, file.name)
    first = read_range(hub, url, 0, 8)
    length = int.from_bytes(first, "little")
    end = min(file.size, 8 + length if length <= HEADER_LIMIT else 64)
    return first + (read_range(hub, url, 8, end) if end > 8 else b"")


def _at_once(do: Callable[[HubFile], None], files: list[HubFile], source: str, hub: Hub) -> None:
    with explained(hub, source), ThreadPoolExecutor(8) as pool:
        list(pool.map(do, files))
