"""A real registry in this process (distribution-spec), in memory, that goes wrong when it is told to.

A fault is asked for with `registry.fault(when, what, times)`: `when` is a regular expression for "METHOD path", `what`
a function of the request handler that answers in place of the registry, and says True if it did.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Fault = Callable[["Handler"], bool]


class Registry:
    """Blobs, manifests and tags; who may enter; and what is to go wrong."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.holders: set[tuple[str, str]] = set()
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: list[list[Any]] = []
        self.auth = ""
        self.users = {"anna": "geheim"}
        self.token_lasts_s = 300.0
        self.tokens: dict[str, tuple[float, str]] = {}
        self.page = 1000
        self.sent_bytes = 0
        handler = type("OwnHandler", (Handler,), {"registry": self})
        self.http = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.host = f"127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def fault(self, when: str, what: Fault, times: int = 1) -> None:
        self.faults.append([re.compile(when), what, times])

    def add(self, repository: str, tag: str, image: Any, blobs: Any) -> None:
        """An image with its blobs, as if it had been pushed."""
        for digest, data in blobs.items():
            self.blobs[str(digest)] = data
            self.holders.add((repository, str(digest)))
        for name in (tag, str(image.digest)):
            self.manifests[repository, name] = (image.manifest.media_type, image.raw_manifest)

    def asked(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, f"{method} {path}")) for method, path, _ in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tests kill who is connected."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    registry: Registry

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", str(len(data))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status: int, code: str) -> None:
        self.answer(status, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode())

    def _serve(self) -> None:
        registry = self.registry
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        if len(self.body) < size:
            # Whoever sent it was killed: nobody hears an answer, and half a manifest is none.
            self.close_connection = True
            return None
        registry.requests.append((self.command, self.path, dict(self.headers.items())))
        for fault in registry.faults:
            if fault[2] and fault[0].search(f"{self.command} {self.path}"):
                fault[2] -= 1
                if fault[1](self):
                    return None
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/token":
            return self._token()
        if not self._may():
            return None
        if parts.path == "/v2/":
            return self.answer(200, b"{}")
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, parts.path):
                return method(self, *match.groups())
        return self.error(404, "NAME_UNKNOWN")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = _serve  # noqa: N815

    # --- who it is ---

    def _user(self) -> str | None:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return None
        name, _, password = base64.b64decode(value).decode().partition(":")
        return name if self.registry.users.get(name) == password else ""

    def _may(self) -> bool:
        registry = self.registry
        if registry.auth == "basic" and not self._user():
            self.answer(401, b"{}", WWW_Authenticate='Basic realm="tests"')
            return False
        if registry.auth.startswith("bearer"):
            value = self.headers.get("Authorization", "").removeprefix("Bearer ")
            until, _ = registry.tokens.get(value, (0.0, ""))
            if time.monotonic() > until:
                match = re.match(r"/v2/(.+?)/(?:manifests|blobs|tags|referrers)", self.path)
                scope = f',scope="repository:{match[1]}:pull"' if match else ""
                realm = f'Bearer realm="http://{registry.host}/token",service="tests"{scope}'
                self.answer(401, b"{}", WWW_Authenticate=realm)
                return False
        return True

    def _token(self) -> None:
        user = self._user()
        if user == "" or (user is None and self.registry.auth == "bearer-private"):
            return self.error(401, "UNAUTHORIZED")
        value = uuid.uuid4().hex
        self.registry.tokens[value] = (time.monotonic() + self.registry.token_lasts_s, self.path)
        return self.answer(200, json.dumps({"token": value, "expires_in": 300}).encode())

    # --- what there is ---

    def _blob(self, repository: str, digest: str) -> None:
        data = self.registry.blobs.get(digest)
        if data is None or (repository, digest) not in self.registry.holders:
            return self.error(404, "BLOB_UNKNOWN")
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            if start >= len(data):
                return self.error(416, "RANGE_INVALID")
            self.registry.sent_bytes += len(data) - start
            return self.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.registry.sent_bytes += len(data) if self.command == "GET" else 0
        return self.answer(200, data)

    def _manifest(self, repository: str, which: str) -> None:
        if self.command == "PUT":
            digest = f"sha256:{hashlib.sha256(self.body).hexdigest()}"
            for name in (which, digest):
                self.registry.manifests[repository, name] = (self.headers["Content-Type"], self.body)
            return self.answer(201, Docker_Content_Digest=digest)
        found = self.registry.manifests.get((repository, which))
        if found is None:
            return self.error(404, "MANIFEST_UNKNOWN")
        digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
        return self.answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest)

    def _tags(self, repository: str) -> None:
        every = sorted(tag for name, tag in self.registry.manifests if name == repository and ":" not in tag)
        rest = [tag for tag in every if tag > self.query.get("last", "")]
        size = min(self.registry.page, int(self.query.get("n", 1000)))
        headers = {}
        if len(rest) > size:
            headers["Link"] = f'</v2/{repository}/tags/list?n={size}&last={rest[size - 1]}>; rel="next"'
        self.answer(200, json.dumps({"name": repository, "tags": rest[:size]}).encode(), **headers)

    def _begin(self, repository: str) -> None:
        digest, source = self.query.get("mount", ""), self.query.get("from", "")
        if (source, digest) in self.registry.holders:
            self.registry.holders.add((repository, digest))
            return self.answer(201, Location=f"/v2/{repository}/blobs/{digest}")
        name = uuid.uuid4().hex
        self.registry.uploads[name] = bytearray()
        return self.answer(202, Location=f"/v2/{repository}/blobs/uploads/{name}?state=a%3Db")

    def _upload(self, repository: str, name: str) -> None:
        data = self.registry.uploads.get(name)
        if data is None:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "GET":
            return self.answer(204, Location=self.path, Range=f"0-{max(0, len(data) - 1)}")
        if self.command == "PATCH" and self.headers.get("Content-Range", "").split("-")[0] not in ("", str(len(data))):
            return self.answer(416, Range=f"0-{max(0, len(data) - 1)}")
        data += self.body
        if self.command == "PATCH":
            return self.answer(202, Location=self.path, Range=f"0-{len(data) - 1}")
        digest = self.query["digest"]
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            return self.error(400, "DIGEST_INVALID")
        self.registry.blobs[digest] = bytes(data)
        self.registry.holders.add((repository, digest))
        return self.answer(201, Location=f"/v2/{repository}/blobs/{digest}")


_ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"/v2/(.+)/blobs/uploads/", Handler._begin),
    (r"/v2/(.+)/blobs/uploads/([0-9a-f]+)", Handler._upload),
    (r"/v2/(.+)/blobs/([a-z0-9]+:[0-9a-f]+)", Handler._blob),
    (r"/v2/(.+)/manifests/([^/]+)", Handler._manifest),
    (r"/v2/(.+)/tags/list", Handler._tags),
)


# --- faults ---


def status(code: int, **headers: str) -> Fault:
    """Answer with this status."""

    def do(handler: Handler) -> bool:
        handler.answer(code, b'{"errors":[{"message":"on purpose"}]}', **headers)
        return True

    return do


def cut(after: int) -> Fault:
    """Promise the whole blob, send `after` bytes of what was asked for, and hang up."""

    def do(handler: Handler) -> bool:
        digest = handler.path.rpartition("/")[2]
        data = handler.registry.blobs[digest]
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + after])
        handler.registry.sent_bytes += after
        handler.close_connection = True
        return True

    return do


def hang_up(handler: Handler) -> bool:
    """Say nothing, and close."""
    handler.close_connection = True
    return True


def says(data: bytes, **headers: str) -> Fault:
    """Answer 200 with these bytes."""

    def do(handler: Handler) -> bool:
        handler.answer(200, data, **headers)
        return True

    return do
