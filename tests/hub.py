"""A small server on the loopback that speaks the Hugging Face hub's file API, for the real client to talk to.

What it does: `HEAD` and `GET /OWNER/REPO/resolve/main/FILE` with the hub's headers, a redirect of weights to another
path as to its content network, ranges, and the hub's ways to refuse.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What the server has, how it behaves, and what it was asked.

    Attributes:
        files: `owner/repo/file` to its bytes.
        gated: repositories that ask for an accepted licence.
        moved: repository to its new name, as after a rename.
        break_after: a content download breaks off after so many bytes ...
        breaks: ... so many times.
        refused: content is refused with 503 after the first request.
        url, content_url: of the hub, and of the network that its content is on.
        asked: (method, path, range) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    break_after: int = 0
    breaks: int = 0
    refused: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""
    content_url: str = ""

    def commit(self, repo: str) -> str:
        """Of all that a repository has now."""
        held = sorted((name, data) for name, data in self.files.items() if name.startswith(f"{repo}/"))
        return hashlib.sha1(repr(held).encode()).hexdigest()

    @property
    def content(self) -> list[str]:
        """Ranges of the requests for content, empty for a whole file."""
        return [ranged for method, path, ranged in self.asked if method == "GET" and path.startswith("/content/")]


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve on two free ports of the loopback until the block ends: the hub itself, and its content network."""
    state = Hub()
    handler = type("Handler", (_Handler,), {"hub": state})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    state.url, state.content_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield state
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""

    def _answer(self) -> None:
        ranged = self.headers.get("Range", "")
        self.hub.asked.append((self.command, self.path, ranged))
        if self.path.startswith("/content/"):
            self._content(self.path.removeprefix("/content/"), ranged)
            return
        repo, slash, file = self.path.strip("/").partition("/resolve/main/")
        if repo in self.hub.moved:
            self._send(307, {"Location": self.path.replace(repo, self.hub.moved[repo])})
        elif repo in self.hub.gated:
            self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {repo} is restricted."})
        elif not slash or not any(name.startswith(f"{repo}/") for name in self.hub.files):
            self._send(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif f"{repo}/{file}" not in self.hub.files:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        else:
            data = self.hub.files[f"{repo}/{file}"]
            about = {
                "Location": f"{self.hub.content_url}/content/{repo}/{file}",
                "X-Repo-Commit": self.hub.commit(repo),
                "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
            }
            self._send(302, about)

    def _content(self, name: str, ranged: str) -> None:
        data = self.hub.files[name]
        start = int(ranged.removeprefix("bytes=").rstrip("-")) if ranged else 0
        if self.hub.refused and len(self.hub.content) > 1:
            self._send(503, {})
            return
        about = {"Content-Length": str(len(data) - start), "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if start:
            about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if start else 200)
        for key, value in about.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET" and self.hub.breaks:
            self.hub.breaks -= 1
            self.wfile.write(data[start : start + self.hub.break_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        elif self.command == "GET":
            self.wfile.write(data[start:])

    def _send(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
