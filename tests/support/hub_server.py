"""A small hub on loopback that speaks the part of the hub's protocol that downloads use, and misbehaves on request.

Two servers, as in the world: the hub itself, and the store that large files are redirected to. Every request is kept.

    GET  /api/models/{repo}/revision/{rev}                 the commit
    GET  /api/models/{repo}/tree/{rev}?recursive=True      the files: size, Git's sum, and of large ones their SHA-256
    HEAD, GET /{repo}/resolve/{rev}/{path}                 small files, or a redirect to the store for large ones
    HEAD, GET {store}/{sha256}                             large files, whole or from a Range on
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_LARGE_BYTES = 10_000
_PIECE_BYTES = 16 * 1024
_REPO = r"(?P<repo>[^/]+/[^/]+)"


@dataclass(frozen=True)
class Seen:
    """A request that arrived. authorization: its header, or empty."""

    method: str
    path: str
    start: int
    authorization: str


@dataclass
class Repo:
    """A repository: files by commit, and the commit that its branch `main` stands for."""

    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    main: str = ""

    def publish(self, files: Mapping[str, bytes]) -> str:
        """A new commit on `main`."""
        text = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in sorted(files.items())})  # noqa: S324
        self.main = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324
        self.commits[self.main] = dict(files)
        return self.main


class HubServer:
    """The hub and its store, with what they are told to do wrong. Names of files are those in their repository."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.seen: list[Seen] = []
        self.sent_bytes: dict[str, int] = {}
        self.token = ""  # wanted for everything, if set
        self.gated = False
        self.break_at: dict[str, int] = {}  # the connection breaks there, once
        self.is_down = threading.Event()  # every connection breaks at once
        self.corrupt: dict[str, int] = {}  # so many answers carry a wrong byte
        self.refuse: dict[str, int] = {}  # HTTP status for a file
        self.turn_away: list[tuple[int, str]] = []  # HTTP status and Retry-After of the next answers
        self.claim_bytes: dict[str, int] = {}  # size that the listing says
        self.knows_ranges = True
        self.bytes_per_s = 0.0
        self._lock = threading.Lock()
        self._hub, self._store = (_serve(self, handler) for handler in (_HubHandler, _StoreHandler))
        self.endpoint = f"http://127.0.0.1:{self._hub.server_port}"
        self.store = f"http://127.0.0.1:{self._store.server_port}"

    def close(self) -> None:
        """Stop both servers."""
        for server in (self._hub, self._store):
            server.shutdown()
            server.server_close()

    def publish(self, repo: str, files: Mapping[str, bytes]) -> str:
        """A new commit of a repository, which exists from then on."""
        return self.repos.setdefault(repo, Repo()).publish(files)

    def note(self, handler: BaseHTTPRequestHandler, start: int = 0) -> None:
        """Remember a request."""
        header = handler.headers.get("Authorization", "")
        with self._lock:
            self.seen.append(Seen(handler.command, unquote(handler.path), start, header))

    def note_sent(self, name: str, count: int) -> None:
        """Remember bytes that went out."""
        with self._lock:
            self.sent_bytes[name] = self.sent_bytes.get(name, 0) + count

    def find_large(self, sha256: str) -> tuple[str, bytes] | None:
        """A large file's name and content."""
        for repo in self.repos.values():
            for files in repo.commits.values():
                for name, data in files.items():
                    if hashlib.sha256(data).hexdigest() == sha256:
                        return name, data
        return None


def git_sha1(data: bytes) -> str:
    """Git's sum of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def _serve(hub: HubServer, handler: type[_Handler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.close_connection = True
        if self.hub.is_down.is_set():
            self.hub.note(self)
            return
        self.answer()

    def answer(self) -> None:
        raise AssertionError("a subclass answers")

    def send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, name: str, data: bytes, headers: Mapping[str, str]) -> None:
        """The content of a file, or what is left of it, with whatever was asked to go wrong."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.hub.knows_ranges else 0
        self.hub.note(self, start)
        if asked and start >= len(data):
            self.send(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        body = data[start:]
        if self.hub.corrupt.get(name, 0) > 0:
            self.hub.corrupt[name] -= 1
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(206 if asked and self.hub.knows_ranges else 200)
        if asked and self.hub.knows_ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for key, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(name, body, start)

    def _send_body(self, name: str, body: bytes, start: int) -> None:
        end = len(body)
        if self.hub.break_at.get(name, -1) >= start:
            end = self.hub.break_at.pop(name) - start
        for offset in range(0, end, _PIECE_BYTES):
            if self.hub.is_down.is_set():
                return
            piece = body[offset : min(end, offset + _PIECE_BYTES)]
            try:
                self.wfile.write(piece)
                self.wfile.flush()
            except OSError:
                return
            self.hub.note_sent(name, len(piece))
            if self.hub.bytes_per_s:
                time.sleep(len(piece) / self.hub.bytes_per_s)


class _HubHandler(_Handler):
    def answer(self) -> None:
        if self.hub.turn_away:
            self.hub.note(self)
            status, wait = self.hub.turn_away.pop(0)
            self.send(status, {"Retry-After": wait} if wait else {}, b"Later.")
            return
        path = unquote(urlsplit(self.path).path)
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.hub.note(self)
            self._refuse(401, "", "Invalid username or password.")
        elif found := re.fullmatch(rf"/api/models/{_REPO}/revision/(?P<rev>[^/]+)", path):
            self.hub.note(self)
            self._tell_commit(found["repo"], found["rev"])
        elif found := re.fullmatch(rf"/api/models/{_REPO}/tree/(?P<rev>[^/]+)", path):
            self.hub.note(self)
            self._tell_tree(found["repo"], found["rev"])
        elif found := re.fullmatch(rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<name>.+)", path):
            self._resolve(found["repo"], found["rev"], found["name"])
        else:
            self.hub.note(self)
            self._refuse(404, "", "Not found.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"} | (
            {"X-Error-Code": code} if code else {}
        )
        self.send(status, headers, json.dumps({"error": message}).encode())

    def _find(self, repo: str, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        """The commit and files of a revision; refuses what is not there."""
        known = self.hub.repos.get(repo)
        if known is None:
            self._refuse(401, "RepoNotFound", "Repository not found")
            return None
        commit = known.main if revision == "main" else revision
        if commit not in known.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit, known.commits[commit]

    def _tell_commit(self, repo: str, revision: str) -> None:
        if (found := self._find(repo, revision)) is not None:
            entries = {"id": repo, "modelId": repo, "sha": found[0], "private": False, "tags": [], "downloads": 0}
            self._tell({**entries, "siblings": [{"rfilename": name} for name in found[1]]})

    def _tell_tree(self, repo: str, revision: str) -> None:
        if (found := self._find(repo, revision)) is None:
            return
        entries: list[dict[str, object]] = [{"type": "directory", "path": "unet", "size": 0, "oid": "0" * 40}]
        for name, data in found[1].items():
            size = self.hub.claim_bytes.get(name, len(data))
            entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": git_sha1(data)}
            if len(data) > _LARGE_BYTES:
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}
            entries.append(entry)
        self._tell(entries)

    def _tell(self, content: object) -> None:
        self.send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        found = self._find(repo, revision)
        if found is None:
            self.hub.note(self)
            return
        if self.hub.gated or name in self.hub.refuse or name not in found[1]:
            self.hub.note(self)
            status = 403 if self.hub.gated else self.hub.refuse.get(name, 404)
            code = "GatedRepo" if self.hub.gated else "EntryNotFound" if status == 404 else ""
            self._refuse(status, code, "Access to this model is restricted." if self.hub.gated else "Sorry.")
            return
        data = found[1][name]
        headers = {"X-Repo-Commit": found[0], "Accept-Ranges": "bytes"}
        if len(data) <= _LARGE_BYTES:
            self.send_file(name, data, {**headers, "ETag": f'"{git_sha1(data)}"'})
            return
        self.hub.note(self)
        sha256 = hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "ETag": f'"{sha256}"'}
        self.send(302, {**headers, **linked, "Location": f"{self.hub.store}/{sha256}?X-Amz-Signature=secret"})


class _StoreHandler(_Handler):
    def answer(self) -> None:
        found = self.hub.find_large(urlsplit(self.path).path.strip("/"))
        if found is None:
            self.hub.note(self)
            self.send(404, {})
        else:
            self.send_file(*found, {"ETag": '"store"', "Accept-Ranges": "bytes"})
