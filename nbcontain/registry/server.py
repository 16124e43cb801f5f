"""Our own registry: distribution-spec 1.1 over HTTP, on this machine only. Runs in a process that was executed for it.

It asks nobody who they are, so it listens on 127.0.0.1 and answers programs, not web pages: a browser says from which
page a request comes (Origin), and by which name it was led here (Host). Neither may be another's.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from nbcontain.errors import BadDigest, BadDocument, DigestMismatch, StoreError
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import INDEX
from nbcontain.oci.reference import is_repository, is_tag
from nbcontain.registry.repositories import MANIFEST_LIMIT_BYTES, Busy, Contents, Kept, Repositories
from nbcontain.values import dataclass

_CHUNK_BYTES = 1 << 20
_UNWANTED_BYTES = 16 << 20
"""So much of a refused body is read, so that its sender comes to read why."""
_LINE_BYTES = 1 << 10
_IDLE_S = 120
_PAGE = 1000
_HOSTS = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?", re.IGNORECASE)
OCTETS = "application/octet-stream"
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Heard:
    """One request that was answered, as the log has it."""

    at: str
    method: str
    path: str
    status: int
    size_bytes: int
    """What went over the line, in the body: of the request where that is the larger, else of the answer."""
    client: str

    def __str__(self) -> str:
        return f"{self.at} {self.method} {self.path} {self.status} {self.size_bytes} {self.client}"

    @classmethod
    def parse(cls, line: str) -> Heard | None:
        """A line of the log; None for what is none."""
        words = line.split(None, 5)
        if len(words) < 5 or not words[3].isdigit() or not words[4].isdigit():
            return None
        at, method, path, status, size = words[:5]
        return cls(at, method, path, int(status), int(size), words[5] if words[5:] else "")


class Refused(Exception):
    """An answer that is an error: a status, and a code of the specification's."""

    def __init__(self, status: int, code: str, why: str = "", headers: Mapping[str, str] = _NONE) -> None:
        super().__init__(why)
        self.status, self.code, self.why, self.headers = status, code, why, headers


class Server(ThreadingHTTPServer):
    """A registry that listens, and holds `lock` until it is closed. Raises OSError where it cannot."""

    daemon_threads = True
    # Two at one port would each get half of what is pushed.
    allow_reuse_port = False

    def __init__(self, root: Path, port: int, log: Callable[[Heard], None], lock: int) -> None:
        self.repositories = Repositories(root)
        self.log = log
        self._lock: int | None = None
        super().__init__(("127.0.0.1", port), _Handler)
        self._lock = lock

    def server_close(self) -> None:
        super().server_close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up in the middle; whatever else it is, is a bug and shows itself."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "nbcontain"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    server: Server
    _status = _sent = _received = 0

    def log_message(self, format: str, *args: object) -> None:
        """http.server's own log is not ours."""

    def _serve(self) -> None:
        self._status = self._sent = self._received = 0
        self._is_read = not self._is_chunked and self.headers.get("Content-Length", "0") == "0"
        self._body = self._read()
        try:
            self._route()
        except Refused as refused:
            self._refuse(refused)
        except Busy:
            self._refuse(Refused(409, "BLOB_UPLOAD_INVALID", "another request is sending to it"))
        except BadDigest as error:
            self._refuse(Refused(400, "DIGEST_INVALID", error.message))
        except DigestMismatch as error:
            self._refuse(Refused(400, "DIGEST_INVALID", str(error)))
        except BadDocument as error:
            self._refuse(Refused(400, "MANIFEST_INVALID", ": ".join(filter(None, (error.message, error.why)))))
        except ValueError as error:
            self._refuse(Refused(400, "UNSUPPORTED", str(error)))
        except StoreError as error:
            self._refuse(Refused(500, "UNKNOWN", ": ".join(filter(None, (error.message, error.why)))))
        finally:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            client = re.sub(r"[^\x21-\x7e]", "_", self.headers.get("User-Agent", "-"))[:80]
            path = quote(unquote(self.path), safe="/:?=&@._-+,%")[:500]
            size = max(self._sent, self._received)
            self.server.log(Heard(at, self.command, path, self._status, size, client))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _route(self) -> None:
        if "Origin" in self.headers or not _HOSTS.fullmatch(self.headers.get("Host", "localhost")):
            raise Refused(403, "DENIED", "this registry is for programs of its own machine, not for web pages")
        url = urlsplit(self.path)
        self._query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        if url.path in ("/v2/", "/v2"):
            return self._json({}, "application/json")
        for pattern, methods in self._routes.items():
            if (match := pattern.fullmatch(unquote(url.path))) is None:
                continue
            if match.groups() and not is_repository(match[1]):
                raise Refused(400, "NAME_INVALID", match[1])
            if (method := methods.get(self.command)) is None:
                raise Refused(405, "UNSUPPORTED", f"no {self.command} here", {"Allow": ", ".join(methods)})
            return method(self, *match.groups())
        raise Refused(404, "NAME_UNKNOWN" if url.path.startswith("/v2/") else "UNSUPPORTED", "there is nothing there")

    # --- blobs ---

    def _get_blob(self, repository: str, digest_text: str) -> None:
        digest = Digest.parse(digest_text)
        path = self.server.repositories.blob(repository, digest)
        if path is None:
            raise Refused(404, "BLOB_UNKNOWN", digest_text)
        with path.open("rb") as file:
            size = path.stat().st_size
            first, last = self._range(size)
            about = {"Docker-Content-Digest": str(digest), "Accept-Ranges": "bytes", "Content-Type": OCTETS}
            is_part = "Range" in self.headers
            if is_part:
                about["Content-Range"] = f"bytes {first}-{last}/{size}"
            self._head(206 if is_part else 200, last - first + 1, about)
            if self.command == "GET" and size:
                self.wfile.flush()
                self._sent += self.connection.sendfile(file, first, last - first + 1)

    def _range(self, size: int) -> tuple[int, int]:
        """The first and the last byte that are asked for (RFC 9110, 14.1.2): one range, as clients ask for."""
        asked = self.headers.get("Range")
        if asked is None:
            return 0, size - 1
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip())
        if match is not None and (match[1] or match[2]):
            first = int(match[1]) if match[1] else max(0, size - int(match[2]))
            last = min(size - 1, int(match[2])) if match[1] and match[2] else size - 1
            if first <= last:
                return first, last
        raise Refused(416, "RANGE_INVALID", asked, {"Content-Range": f"bytes */{size}"})

    def _delete_blob(self, repository: str, digest_text: str) -> None:
        if not self.server.repositories.remove_blob(repository, Digest.parse(digest_text)):
            raise Refused(404, "BLOB_UNKNOWN", digest_text)
        self._answer(202)

    # --- uploads ---

    def _begin(self, repository: str) -> None:
        repositories = self.server.repositories
        if mounted := self._query.get("mount"):
            digest = Digest.parse(mounted)
            source = self._query.get("from", "")
            if is_repository(source) and repositories.mount(repository, digest, source):
                return self._created(f"/v2/{repository}/blobs/{digest}", digest)
        whole = self._query.get("digest")
        wanted = Digest.parse(whole) if whole else None
        upload = repositories.begin(repository)
        if wanted is None:
            return self._going_on(repository, upload, 202)
        repositories.append(upload, self._body)
        return self._publish(repository, upload, wanted)

    def _upload(self, repository: str, upload: str) -> int:
        size = self.server.repositories.uploaded(repository, upload)
        if size is None:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", upload)
        return size

    def _state(self, repository: str, upload: str) -> None:
        self._upload(repository, upload)
        self._going_on(repository, upload, 204)

    def _append(self, repository: str, upload: str) -> None:
        with self.server.repositories.alone(upload):
            self._take(repository, upload)
        self._going_on(repository, upload, 202)

    def _finish(self, repository: str, upload: str) -> None:
        digest = Digest.parse(self._query.get("digest", ""))
        with self.server.repositories.alone(upload):
            self._take(repository, upload)
            self._publish(repository, upload, digest)

    def _publish(self, repository: str, upload: str, digest: Digest) -> None:
        if not self.server.repositories.finish(repository, upload, digest):
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", upload)
        self._created(f"/v2/{repository}/blobs/{digest}", digest)

    def _take(self, repository: str, upload: str) -> None:
        """The body, at the end of what is here. A chunk that begins elsewhere is refused."""
        size = self._upload(repository, upload)
        told = re.match(r"(?:bytes )?(\d+)-", self.headers.get("Content-Range", ""))
        if told is not None and int(told[1]) != size:
            raise Refused(416, "BLOB_UPLOAD_INVALID", f"the next byte is {size}", _place(repository, upload, size))
        self.server.repositories.append(upload, self._body)

    def _cancel(self, repository: str, upload: str) -> None:
        self._upload(repository, upload)
        if not self.server.repositories.cancel(upload):
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", upload)
        self._answer(204)

    def _going_on(self, repository: str, upload: str, status: int) -> None:
        size = self._upload(repository, upload)
        self._answer(status, b"", {"Docker-Upload-UUID": upload, **_place(repository, upload, size)})

    # --- manifests and tags ---

    def _get_manifest(self, repository: str, which: str) -> None:
        kept = self.server.repositories.manifest(repository, which) if ":" in which or is_tag(which) else None
        if kept is None:
            raise Refused(404, "MANIFEST_UNKNOWN", f"{repository} has no {which}")
        self._answer(200, kept.data, {"Content-Type": kept.media_type, "Docker-Content-Digest": str(kept.digest)})

    def _put_manifest(self, repository: str, which: str) -> None:
        if int(self.headers.get("Content-Length") or 0) > MANIFEST_LIMIT_BYTES:
            raise Refused(413, "SIZE_INVALID", f"a manifest has at most {MANIFEST_LIMIT_BYTES} bytes")
        data = bytearray()
        for chunk in self._body:
            data += chunk
            if len(data) > MANIFEST_LIMIT_BYTES:
                raise Refused(413, "SIZE_INVALID", f"a manifest has at most {MANIFEST_LIMIT_BYTES} bytes")
        digest, tag = self._named(which, bytes(data))
        contents = Contents.parse(bytes(data))
        if missing := self.server.repositories.missing(repository, contents):
            raise Refused(404, "MANIFEST_BLOB_UNKNOWN", ", ".join(map(str, missing)))
        media_type = self.headers.get("Content-Type", "")
        if not re.fullmatch(r"[\w.+-]+/[\w.+-]+(; ?[\w.=+-]+)?", media_type):
            raise Refused(400, "MANIFEST_INVALID", "its Content-Type must be its media type")
        self.server.repositories.put(repository, Kept(digest, media_type, bytes(data)), tag)
        more = {"OCI-Subject": str(contents.subject)} if contents.subject else _NONE
        self._created(f"/v2/{repository}/manifests/{digest}", digest, more)

    def _named(self, which: str, data: bytes) -> tuple[Digest, str]:
        """The digest, and the tag if it is pushed by one. Raises BadDigest, DigestMismatch."""
        if ":" not in which:
            if not is_tag(which):
                raise Refused(400, "TAG_INVALID", which)
            return Digest.of(data), which
        digest = Digest.parse(which)
        digest.verify(data)
        return digest, ""

    def _delete_manifest(self, repository: str, which: str) -> None:
        repositories = self.server.repositories
        if ":" in which:
            gone = repositories.remove_manifest(repository, Digest.parse(which))
        else:
            gone = is_tag(which) and repositories.remove_tag(repository, which)
        if not gone:
            raise Refused(404, "MANIFEST_UNKNOWN", f"{repository} has no {which}")
        self._answer(202)

    def _tags(self, repository: str) -> None:
        if repository not in self.server.repositories.names():
            raise Refused(404, "NAME_UNKNOWN", repository)
        self._page({"name": repository}, "tags", self.server.repositories.tags(repository), f"{repository}/tags/list")

    def _catalog(self) -> None:
        self._page({}, "repositories", self.server.repositories.names(), "_catalog")

    def _page(self, document: dict[str, object], key: str, every: list[str], path: str) -> None:
        """Some of many names, and where the next ones are (distribution-spec, listing tags)."""
        rest = [each for each in sorted(every) if each > self._query.get("last", "")]
        asked = self._query.get("n", "")
        count = min(int(asked), _PAGE) if asked.isascii() and asked.isdigit() else _PAGE
        link = _NONE
        if 0 < count < len(rest):
            link = {"Link": f'</v2/{path}?n={count}&last={quote(rest[count - 1])}>; rel="next"'}
        self._json({**document, key: rest[:count]}, "application/json", link)

    def _referrers(self, repository: str, digest_text: str) -> None:
        found = self.server.repositories.referrers(repository, Digest.parse(digest_text))
        more = _NONE
        if kind := self._query.get("artifactType"):
            found = [each for each in found if each.get("artifactType") == kind]
            more = {"OCI-Filters-Applied": "artifactType"}
        self._json({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}, INDEX, more)

    # --- reading and answering ---

    @property
    def _is_chunked(self) -> bool:
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def _read(self) -> Iterator[bytes]:
        """What the request brings. Raises ConnectionError if the client hangs up before the end of it."""
        if self._is_chunked:
            while size := int(self._line().partition(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
            while self._line():
                pass
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))
        self._is_read = True

    def _line(self) -> bytes:
        line = self.rfile.readline(_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise ConnectionError("the client hung up")
        return line.strip()

    def _exactly(self, size: int) -> Iterator[bytes]:
        if size < 0:
            raise ValueError(f"there is no body of {size} bytes")
        while size:
            chunk = self.rfile.read(min(size, _CHUNK_BYTES))
            if not chunk:
                raise ConnectionError("the client hung up")
            size -= len(chunk)
            self._received += len(chunk)
            yield chunk

    def _read_on(self) -> bool:
        """What is left of a body that is not wanted; False if that is too much to wait for.

        Unread, it would be taken for the next request; and a connection that is closed on it loses the answer.
        """
        with suppress(OSError, ValueError):
            for _ in self._body:
                if self._received > _UNWANTED_BYTES:
                    break
        return self._is_read

    def _head(self, status: int, size: int, headers: Mapping[str, str]) -> None:
        self._status = status
        is_over = not self._is_read and not self._read_on()
        self.send_response(status)
        if is_over:
            self.send_header("Connection", "close")
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def _answer(self, status: int, data: bytes = b"", headers: Mapping[str, str] = _NONE) -> None:
        self._head(status, len(data), headers)
        if self.command != "HEAD":
            self.wfile.write(data)
            self._sent += len(data)

    def _json(self, document: object, media_type: str, headers: Mapping[str, str] = _NONE) -> None:
        self._answer(200, json.dumps(document).encode(), {"Content-Type": media_type, **headers})

    def _created(self, location: str, digest: Digest, headers: Mapping[str, str] = _NONE) -> None:
        self._answer(201, b"", {"Location": location, "Docker-Content-Digest": str(digest), **headers})

    def _refuse(self, refused: Refused) -> None:
        """docker's document of errors. A client that sends much may have gone before it reads it."""
        errors = [{"code": refused.code, "message": refused.code.lower().replace("_", " "), "detail": refused.why}]
        about = {"Content-Type": "application/json", **refused.headers}
        with suppress(ConnectionError):
            self._answer(refused.status, json.dumps({"errors": errors}).encode(), about)

    _routes: ClassVar[dict[re.Pattern[str], dict[str, Callable[..., None]]]] = {
        re.compile(r"/v2/(.+)/blobs/uploads/"): {"POST": _begin},
        re.compile(r"/v2/(.+)/blobs/uploads/([0-9a-f]{32})"): {
            "GET": _state, "PATCH": _append, "PUT": _finish, "DELETE": _cancel,
        },
        re.compile(r"/v2/(.+)/blobs/([^/]+)"): {"GET": _get_blob, "HEAD": _get_blob, "DELETE": _delete_blob},
        re.compile(r"/v2/(.+)/manifests/([^/]+)"): {
            "GET": _get_manifest, "HEAD": _get_manifest, "PUT": _put_manifest, "DELETE": _delete_manifest,
        },
        re.compile(r"/v2/(.+)/tags/list"): {"GET": _tags},
        re.compile(r"/v2/(.+)/referrers/([^/]+)"): {"GET": _referrers},
        re.compile(r"/v2/_catalog"): {"GET": _catalog},
    }  # fmt: skip


def _place(repository: str, upload: str, size: int) -> dict[str, str]:
    """Where an upload goes on."""
    return {"Location": f"/v2/{repository}/blobs/uploads/{upload}", "Range": f"0-{max(0, size - 1)}"}
