"""A Hub on loopback: real HTTP and hashes for what huggingface_hub 2.4 and we ask, with faults on demand."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", "tokenizer.json", ".bin")


@dataclass
class Repo:
    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    downloads: int = 0
    refs: dict[str, str] = field(default_factory=dict)  # branch or tag -> commit
    old: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files of earlier commits
    lies: dict[str, bytes] = field(default_factory=dict)  # what is sent in place of a file

    @property
    def head(self) -> str:
        return hashlib.sha1(b"".join(name.encode() + data for name, data in sorted(self.files.items()))).hexdigest()

    def commit(self, revision: str) -> str | None:
        known = {"main": self.head, **self.refs}
        found = known.get(revision, revision)
        return found if found == self.head or found in self.old else None

    def at(self, commit: str) -> dict[str, bytes]:
        return self.files if commit == self.head else self.old[commit]

    def move(self, files: dict[str, bytes]) -> None:
        self.old[self.head] = self.files
        self.files = files


class FakeHub:
    """`repos` by id; `served` counts the bytes of each file that went out; `requests` is every method and path."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.token = "hf_" + "c" * 30  # the one token that opens gated and private models and may push
        self.served: dict[str, int] = {}
        self.requests: list[str] = []
        self.authorized: list[str] = []  # paths that came with a token
        self.cut_after: int | None = None  # bytes of a weight file before the connection is cut
        self.cuts = 0  # how often still
        self.pace = 0.0  # seconds between two pieces of a weight file
        self.refuse: list[tuple[int, dict[str, str]]] = []  # answers to give first
        self.uploaded: dict[str, bytes] = {}
        self.full = False  # takes no more weights

    def add(self, name: str, folder: Path, **facts) -> Repo:
        self.repos[name] = Repo({p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}, **facts)
        return self.repos[name]

    @contextmanager
    def serving(self) -> Iterator[str]:
        hub = self
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            self.url = f"http://127.0.0.1:{server.server_port}"
            yield self.url
        finally:
            server.shutdown()
            server.server_close()


def blob_of(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self._note()
        if self.hub.refuse:
            status, headers = self.hub.refuse.pop(0)
            return self._send(status, b"{}", headers)
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        if path == "/api/models":
            return self._search(query)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(found[1], found[2] or "main", "blobs" in query)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*found.groups())
        return self._send(404, b"{}")

    do_HEAD = do_GET

    def do_POST(self):
        self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not self._may():
            return self._send(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            if name in self.hub.repos:
                return self._send(409, b'{"error": "You already created this model repo"}')
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repos[name] = Repo({".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
            return self._json({"url": f"{self.hub.url}/{name}"})
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", self.path):
            return self._json({"files": [{"path": f["path"], "shouldIgnore": False,
                               "uploadMode": "lfs" if f["path"].endswith(LFS) else "regular"}
                              for f in json.loads(body)["files"]]})  # fmt: skip
        if self.path.endswith(".git/info/lfs/objects/batch"):
            return self._json({"transfer": "basic", "objects": [self._upload(o) for o in json.loads(body)["objects"]]})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            return self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        return self._send(404, b"{}")

    def do_PUT(self):
        self._note()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.hub.full:
            return self._send(507, b"")
        self.hub.uploaded[hashlib.sha256(data).hexdigest()] = data
        return self._send(200, b"")

    def _note(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        if "Authorization" in self.headers:
            self.hub.authorized.append(self.path)

    def _may(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _search(self, query):
        words = query["search"][0].lower()
        names = [name for name in self.hub.repos if words in name.lower()]
        names.sort(key=lambda name: -self.hub.repos[name].downloads)
        found = []
        for name in names[: int(query["limit"][0])]:
            repo = self.hub.repos[name]
            found.append({"id": name, "downloads": repo.downloads, "likes": 3, "gated": "auto" if repo.gated else False,
                          "safetensors": {"parameters": {"BF16": 1000}, "total": 1000}})  # fmt: skip
        self._json(found)

    def _info(self, name, revision, blobs):
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._may()):
            return self._send(401 if repo is None and not self._may() else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        commit = repo.commit(revision)
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = [{"rfilename": name, **(self._facts(name, data) if blobs else {})}
                 for name, data in repo.at(commit).items()]  # fmt: skip
        return self._json({"id": name, "sha": commit, "gated": repo.gated, "private": repo.private, "siblings": files})

    def _facts(self, name, data):
        facts = {"size": len(data), "blobId": blob_of(data)}
        if name.endswith(LFS):
            facts["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return facts

    def _file(self, name, commit, file):
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if repo.gated and not self._may():
            return self._send(403 if "Authorization" in self.headers else 401, b"{}", {"X-Error-Code": "GatedRepo"})
        if file not in repo.at(commit):
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        data = repo.lies.get(file, repo.at(commit)[file])
        start, end, status = 0, len(data), 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end, status = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else len(data), len(data)), 206
        self.send_response(status)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{blob_of(data)}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        cut = self.hub.cut_after if file.endswith(".safetensors") and self.hub.cuts else None
        for at in range(start, end, 4096):
            if cut is not None and at - start >= cut:
                self.hub.cuts -= 1
                self.close_connection = True
                return None
            piece = data[at : min(at + 4096, end)]
            self.hub.served[f"{name}/{file}"] = self.hub.served.get(f"{name}/{file}", 0) + len(piece)
            try:
                self.wfile.write(piece)
            except OSError:  # whoever asked has left
                self.close_connection = True
                return None
            if file.endswith(".safetensors"):
                time.sleep(self.hub.pace)
        return None

    def _upload(self, asked):
        if asked["oid"] in self.hub.uploaded:
            return {"oid": asked["oid"], "size": asked["size"]}
        href = f"{self.hub.url}/lfs/{asked['oid']}"
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": {"href": href}}}

    def _commit(self, name, lines):
        repo = self.hub.repos[name]
        if lines[0]["value"].get("parentCommit", repo.head) != repo.head:
            return self._send(412, b"{}")
        files = dict(repo.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploaded[value["oid"]]
        repo.move(files)
        return self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{repo.head}", "commitOid": repo.head})

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, data, headers=None):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
