"""A finished export to a repository of its own on the Hub: private unless asked otherwise, never over other files.

Files go up one by one and become visible in one commit, so that a push that breaks off leaves the repository as it was
and the next one sends only what is missing. (The library's `upload_folder` may split a folder into several commits.)
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from merging.errors import UserError
from merging.events import Event, Notice, Pushed, Uploading
from merging.hub import Hub, Listing, explained, listing
from merging.hub_cache import HUB_ID
from merging.manifest import read_manifest, verify
from merging.partial import JOURNAL
from merging.words import some

GIT = {".gitattributes"}  # all that a new repository holds


def push(folder: Path, repo: str, *, hub: Hub, private: bool = True) -> Iterator[Event]:
    """Upload every file that the export's manifest names, and none besides, to a new or empty repository."""
    if not HUB_ID.fullmatch(repo) or "@" in repo:
        raise UserError("E_USAGE", "a repository's name is OWNER/NAME.", where=repo, kept="Nothing was sent.")
    if not hub.token:
        raise UserError("E_TOKEN", "a push needs a token that may write.", where=repo, kept="Nothing was sent.",
                        do="Set HF_TOKEN, or run: hf auth login")  # fmt: skip
    verify(folder)
    manifest = read_manifest(folder)
    names = [*manifest["files"], *manifest["shards"], JOURNAL]
    there = _new_or_empty(repo, hub, private)
    besides = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in names)
    if besides:
        yield Notice(f"Left out, because the export did not write them: {some(besides)}.")
    yield from _upload(folder, names, there, hub, private)


def _upload(folder: Path, names: list[str], there: Listing, hub: Hub, private: bool) -> Iterator[Event]:
    from huggingface_hub import CommitOperationAdd

    begun, api = time.monotonic(), _api(hub)
    files = [CommitOperationAdd(name, str(folder / name)) for name in names]
    done, total = 0, sum(file.upload_info.size for file in files)
    for file in files:
        left = (time.monotonic() - begun) * (total - done) / done if done else None
        yield Uploading(there.repo, file.path_in_repo, done, total, left)
        _ask(hub, there.repo, lambda file=file: api.preupload_lfs_files(there.repo, [file], free_memory=False))
        done += file.upload_info.size
    message = "A merge made with Mergescope"
    commit = _ask(hub, there.repo, lambda: api.create_commit(there.repo, files, commit_message=message,
                                                            parent_commit=there.commit))  # fmt: skip
    yield Pushed(there.repo, f"{hub.url}/{there.repo}", commit.oid, private, len(files))


def _new_or_empty(repo: str, hub: Hub, private: bool) -> Listing:
    try:
        there = listing(repo, hub)
    except UserError as error:
        if error.code != "E_MODEL_MISSING":
            raise
        _ask(hub, repo, lambda: _api(hub).create_repo(repo, private=private))
        return listing(repo, hub)
    if names := sorted(there.files.keys() - GIT):
        raise UserError("E_REPO_EXISTS", f"the repository has files already: {some(names)}.", where=repo,
                        kept="It was not touched.", do="Choose another name.")  # fmt: skip
    if there.private != private:
        kind = "private" if there.private else "public"
        raise UserError("E_REPO_EXISTS", f"the repository exists already and is {kind}.", where=repo,
                        kept="It was not touched.", do="Choose another name, or change that on its page.")  # fmt: skip
    return there


def _api(hub: Hub) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token=hub.token, library_name="mergescope")


def _ask(hub: Hub, repo: str, call: Callable[[], Any]) -> Any:
    with explained(hub, repo):
        try:
            return call()
        except RuntimeError as error:  # how the library tells a failed upload; its cause says why
            if error.__cause__:
                raise error.__cause__ from None
            raise UserError("E_HUB", "the upload failed.", where=repo, kept="The repository is as it was.",
                            do="Try again: what went up is not sent again.") from None  # fmt: skip
