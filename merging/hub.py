"""The Hub: searching it, pinning a revision to a commit, and asking it for bytes; every refusal in plain words.

A token is passed with each call and goes into the request's header alone: never into a message, a file or a log.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from merging.errors import UserError
from merging.hub_cache import COMMIT, split
from merging.safetensors_header import ITEM_BYTES

TIMEOUT = 10.0  # seconds without an answer
BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Hub:
    """Which Hub is asked and in whose name; without a token as a stranger, whatever login this machine has."""

    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None  # None: HF_ENDPOINT, else huggingface.co

    @property
    def url(self) -> str:
        from huggingface_hub import constants

        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    @property
    def headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        if self.token and not re.fullmatch(r"[!-~]+", self.token):
            raise UserError("E_TOKEN", "the token holds characters that no token has.", do="Copy it once more.")
        return build_hf_headers(token=self.token or False, library_name="mergescope")


@dataclass(frozen=True)
class Found:
    """One model that a search found; `n_bytes` is that of its weights, None where the Hub does not say."""

    id: str
    downloads: int
    likes: int
    gated: bool
    n_bytes: int | None


@dataclass(frozen=True)
class HubFile:
    """A file of a model; `blob` is its sha256 for large files, else git's own sha1."""

    name: str
    size: int
    blob: str


@dataclass(frozen=True)
class Listing:
    """The files of a model at one commit."""

    source: str
    repo: str
    revision: str
    commit: str
    files: Mapping[str, HubFile]
    private: bool = False

    def url(self, hub: Hub, name: str) -> str:
        return f"{hub.url}/{self.repo}/resolve/{self.commit}/{quote(name)}"


def this_machine() -> Hub:
    """The Hub in the name of whoever is logged in here: HF_TOKEN, else `hf auth login`, else nobody."""
    from huggingface_hub import get_token

    return Hub(token=get_token())


def search(words: str, limit: int = 10, hub: Hub = Hub()) -> list[Found]:
    """Text models with safetensors weights whose ids hold these words, the most downloaded first."""
    params = {"search": words, "pipeline_tag": "text-generation", "filter": "safetensors", "sort": "downloads",
              "limit": limit, "expand": ["downloads", "likes", "gated", "safetensors"]}  # fmt: skip
    with explained(hub):
        answer = _json(hub, "/api/models", params)
        return [_found(item) for item in answer[:limit]]


def listing(source: str, hub: Hub = Hub()) -> Listing:
    """The files of a model, all of one commit: that of its revision now."""
    repo, revision = split(source)
    path = f"/api/models/{repo}/revision/{quote(revision, safe='')}"
    with explained(hub, source):
        info = _json(hub, path, {"blobs": True})
        if not COMMIT.fullmatch(info["sha"]):
            raise ValueError("no commit")
        files = [_file(item) for item in info.get("siblings", ())]
        known = {file.name: file for file in files if BLOB.fullmatch(file.blob)}
    return Listing(source, repo, revision, info["sha"], known, bool(info.get("private")))


def read_range(hub: Hub, url: str, start: int, end: int) -> bytes:
    """The bytes from `start` up to `end` of a file; only these cross the network."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = {**hub.headers, "Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        hf_raise_for_status(response)
        skip = 0 if response.status_code == 206 else start
        data = b""
        for chunk in response.iter_raw():
            data += chunk
            if len(data) >= skip + end - start:
                break
    return data[skip : skip + end - start]


@contextmanager
def explained(hub: Hub, source: str = "") -> Iterator[None]:
    """Turns whatever the Hub or the way there refuses into a UserError; the Hub's own text is never passed on."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    where = source or hub.url
    kept = "Models that are on this machine still work."
    try:
        yield
    except HfHubHTTPError as error:
        raise _refused(error, hub, source) from None
    except OfflineModeIsEnabled:
        raise UserError("E_OFFLINE", "the Hub may not be asked: HF_HUB_OFFLINE is set.", where=where, kept=kept,
                        do="Start again without it, or use a model that is on this machine.") from None  # fmt: skip
    except httpx2.TimeoutException:
        what = f"the Hub did not answer within {TIMEOUT:.0f} seconds."
        raise UserError("E_OFFLINE", what, where=where, kept=kept, do="Try again.") from None
    except httpx2.TransportError:
        raise UserError("E_OFFLINE", "the Hub cannot be reached.", where=where, kept=kept,
                        do="Check the connection and try again.") from None  # fmt: skip
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError, AttributeError):
        raise UserError("E_HUB", "the answer is not one of a Hub.", where=where, do="Check HF_ENDPOINT.") from None


def _refused(error: Any, hub: Hub, source: str) -> UserError:
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    repo, _, revision = source.partition("@")
    status, page = error.response.status_code, f"{hub.url}/{repo}"
    if isinstance(error, GatedRepoError):
        token = "with the account of your token" if hub.token else "and give a token of that account (HF_TOKEN)"
        code, what, do = "E_GATED", "the model is gated.", f"Accept its licence at {page} {token}."
    elif isinstance(error, NoRevision):
        code, what, do = "E_REVISION", f"the model has no revision {revision or 'main'}.", f"See {page}/commits/main."
    elif isinstance(error, RemoteEntryNotFoundError):
        code, what, do = "E_MODEL_MISSING", "a file of the model is not there any more.", "Try again."
    elif isinstance(error, RepositoryNotFoundError) or status == 404:
        code, what = "E_MODEL_MISSING", "there is no such model on the Hub, or it is private."
        do = "Check the id; for a private model, give a token that may read it."
    elif status == 401:
        code, what, do = "E_TOKEN", "the Hub does not accept the token.", f"See {hub.url}/settings/tokens."
    elif status == 403:
        code, what, do = "E_TOKEN", "the token has no right to do this.", "Give it that right, or use another one."
    elif status in (409, 412):
        code, what, do = "E_REPO_EXISTS", "the repository was made or changed by someone else.", "Choose another name."
    elif status == 429:
        wait = error.response.headers.get("Retry-After", "")
        code, what = "E_HUB_BUSY", "the Hub was asked too often."
        do = f"Try again in {wait} seconds." if wait.isdigit() else "Try again in a few minutes."
    elif status >= 500:
        code, what, do = "E_HUB", f"the Hub has a fault of its own ({status}).", "Try again later."
    else:
        code, what, do = "E_HUB", f"the Hub refused with code {status}.", ""
    return UserError(code, what, where=source or hub.url, do=do)


def _json(hub: Hub, path: str, params: dict[str, Any]) -> Any:
    from huggingface_hub.utils import get_session, hf_raise_for_status

    response = get_session().get(hub.url + path, params=params, headers=hub.headers, timeout=TIMEOUT)
    hf_raise_for_status(response)
    return response.json()


def _found(item: dict[str, Any]) -> Found:
    counts = (item.get("safetensors") or {}).get("parameters") or {}
    n_bytes = sum(n * ITEM_BYTES.get(dtype, 0) for dtype, n in counts.items())
    return Found(item["id"], item.get("downloads", 0), item.get("likes", 0), bool(item.get("gated")), n_bytes or None)


def _file(item: dict[str, Any]) -> HubFile:
    lfs = item.get("lfs") or {}
    return HubFile(item["rfilename"], int(lfs.get("size") or item["size"]), lfs.get("sha256") or item["blobId"])
