"""HTTP to registries: connections that are kept, idle time-outs, proxies, TLS, and which hosts may be spoken to.

http.client instead of httpx: over loopback a 200 MB blob with its SHA-256 takes 0.13 s instead of 0.23, without a
dependency; and who is connected to, and with which credentials, is decided here.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult

from nbcontain.errors import BadAddress, BadAnswer, BadCertificate, BadDocument, Cancelled, Unreachable, UsageError
from nbcontain.registry.addresses import parsed, shown
from nbcontain.values import dataclass

IDLE_S = 30.0
"""No byte for so long is a connection that is lost; whatever is slower than `SLOWEST` per window is too."""
_CONNECT_S = 10.0
_WINDOW_S = 30.0
_SLOWEST = 4096
_BEHIND_MS = 500
_CHUNK = 256 << 10
_STEP_S, _STEP_BYTES = 30.0, 1 << 20
"""An answer has to begin within so many bytes, and so long after the first of them; and so has its body to go on."""
_OF_ANOTHER_NAME, _OUT_OF_TIME = (62, 64), (9, 10)
"""X509_V_ERR_HOSTNAME_MISMATCH and IP_ADDRESS_MISMATCH; CERT_NOT_YET_VALID and CERT_HAS_EXPIRED."""

Body = bytes | tuple[int, int, int]
"""Bytes, or a part of an open file: (fd, offset, length)."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Read it, or `close` it, before anything else is asked on the same connection."""

    status: int
    headers: http.client.HTTPMessage
    url: str
    raw: http.client.HTTPResponse
    connection: Connection

    def read1(self) -> bytes:
        """The next bytes as they come; nothing at the end. OSError and HTTPException if the connection is cut."""
        return self.raw.read1(_CHUNK)

    def read(self, limit: int) -> bytes:
        """All of it. Raises BadDocument beyond `limit` bytes."""
        data = bytearray()
        while chunk := self.read1():
            data += chunk
            if len(data) > limit:
                self.close()
                raise BadDocument(f"{shown(self.url)} is larger than {limit >> 10} KiB")
        if self.raw.length:
            raise http.client.IncompleteRead(bytes(data))
        self.release()
        return bytes(data)

    def release(self) -> None:
        """All of it was read: the connection can be used again."""
        self.raw.close()
        if self.raw.will_close:
            self.connection.drop()
        else:
            self.connection.release()

    def close(self) -> None:
        """Nobody wants the rest."""
        self.connection.drop()


class _Watched(io.RawIOBase):
    """A socket as a file that gives up when nothing comes, or hardly anything, while somebody waits for it."""

    def __init__(self, sock: socket.socket, held: io.IOBase) -> None:
        # `held` is the socket's own file: while it is open, the socket is, whoever else closes it.
        self._sock, self._held = sock, held
        self._waited_s, self._got = 0.0, 0
        self._is_late = False
        """It had time for one packet more."""
        self.begin_step()

    def begin_step(self) -> None:
        """The next thing is read: the head of an answer, or some of its body with what stands between that."""
        self._step_bytes, self._step_s = 0, 0.0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._held.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        if self._waited_s > _WINDOW_S:
            # Before more is waited for: what came late has come all the same.
            if self._got >= _SLOWEST:
                self._waited_s, self._got, self._is_late = 0.0, 0, False
            elif self._is_late or not self._has_more():
                raise TimeoutError("the registry sends next to nothing")
            else:
                self._is_late = True
        if self._step_bytes > _STEP_BYTES or self._step_s > _STEP_S:
            # http.client reads interim answers and trailers for as long as any come.
            raise http.client.HTTPException("the registry says much, and answers nothing")
        began = time.monotonic()
        count = self._sock.recv_into(buffer)
        # What the reader does between two calls, as long as it takes, is not the registry's fault.
        waited_s = time.monotonic() - began
        self._waited_s += waited_s
        self._got += count
        # Nor is it slow to answer while it says nothing: for that there is the time-out of the socket.
        self._step_s += waited_s if self._step_bytes else 0.0
        self._step_bytes += count
        return count

    def _has_more(self) -> bool:
        """A short answer comes in two packets, and the second one right behind the first."""
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(_BEHIND_MS))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._watched = _Watched(sock, self.fp)
        self.fp = io.BufferedReader(self._watched, 64 << 10)

    def read1(self, n: int = -1) -> bytes:
        self._watched.begin_step()
        return super().read1(n)


class Connection:
    """One connection to one host, and the pool it goes back to."""

    def __init__(self, wire: Wire, key: tuple[str, str, int], http_connection: http.client.HTTPConnection) -> None:
        self.wire, self.key, self.http = wire, key, http_connection

    def release(self) -> None:
        self.wire._release(self)

    def drop(self) -> None:
        self.wire._drop(self)


class Wire:
    """The connections of one pull or push. Safe among threads; `shut` ends all of them at once."""

    def __init__(self, tls: Callable[[str], ssl.SSLContext], environ: Mapping[str, str] | None = None) -> None:
        self._tls = tls
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._live: set[Connection] = set()
        self._begun: set[socket.socket] = set()
        """Handles of those that are being made: TLS takes the first one to itself."""
        self.is_shut = threading.Event()
        self.is_warned = False
        """Whether what is odd about who one is was told."""

    def shut(self) -> None:
        """Nobody wants anything any more: whoever waits for an answer gets Cancelled."""
        self.is_shut.set()
        with self._lock:
            made = [*self._live, *(each for some in self._idle.values() for each in some)]
            # Under the lock, since who has made a connection closes its second handle.
            for sock in (*self._begun, *(each.http.sock for each in made)):
                with suppress(OSError, AttributeError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = [each for some in self._idle.values() for each in some], {}
        for each in idle:
            each.http.close()

    def strike(self) -> None:
        """Raises Cancelled after `shut`."""
        if self.is_shut.is_set():
            raise Cancelled("the transfer was cancelled")

    def pause(self, seconds: float) -> None:
        self.is_shut.wait(seconds)
        self.strike()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body = b"",
        on_sent: Callable[[int], None] = lambda count: None, allowed: Callable[[str], None] | None = None,
    ) -> Response:  # fmt: skip
        """One request, one answer; nothing is followed. `allowed` is asked of each address before it is connected to.

        Raises OSError and HTTPException for what may go better the next time, and the typed errors for what will not.
        """
        parts = parsed(url)
        key = (parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        while True:
            self.strike()
            connection, is_used = self._connection(key, parts, allowed)
            try:
                raw = self._exchange(connection, method, parts, headers, body, on_sent)
            except ssl.SSLCertVerificationError as error:
                connection.drop()
                raise _untrusted(parts.netloc, error) from error
            except (OSError, http.client.HTTPException) as error:
                connection.drop()
                self.strike()
                # A kept connection may have been closed at the other end meanwhile: that is nobody's fault. But what
                # changes something may have arrived in part, and its sender has to look how much did.
                is_stale = is_used and isinstance(error, (ConnectionError, http.client.BadStatusLine))
                if is_stale and method in ("GET", "HEAD"):
                    continue
                raise
            encoding = raw.headers.get("Content-Encoding", "identity")
            if encoding not in ("", "identity") and method != "HEAD":
                connection.drop()
                raise BadAnswer(f"{parts.netloc} answers in the encoding {encoding!r}", why="none was asked for")
            return Response(raw.status, raw.headers, url, raw, connection)

    # --- in parts ---

    def _exchange(
        self, connection: Connection, method: str, parts: SplitResult, headers: Mapping[str, str], body: Body,
        on_sent: Callable[[int], None],
    ) -> http.client.HTTPResponse:  # fmt: skip
        client = connection.http
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        length = len(body) if isinstance(body, bytes) else body[2]
        client.putrequest(method, target, skip_accept_encoding=True)
        client.putheader("Accept-Encoding", "identity")
        client.putheader("User-Agent", "nbcontain")
        for name, value in headers.items():
            client.putheader(name, value)
        if method in ("PUT", "POST", "PATCH"):
            client.putheader("Content-Length", str(length))
        if isinstance(body, bytes):
            client.endheaders(body or None)
        else:
            client.endheaders()
            self._send_file(client.sock, body, on_sent)
        return client.getresponse()

    def _send_file(self, sock: socket.socket, body: tuple[int, int, int], on_sent: Callable[[int], None]) -> None:
        fd, offset, left = body
        sock.settimeout(IDLE_S)
        while left:
            self.strike()
            size = min(left, 1 << 20)
            if isinstance(sock, ssl.SSLSocket):
                data = os.pread(fd, size, offset)
                sock.sendall(data)
                count = len(data)
            else:
                with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
                    count = sock.sendfile(file, offset, size)
            if not count:
                raise OSError("the file became shorter while it was sent")
            offset, left = offset + count, left - count
            on_sent(count)

    def _connection(
        self, key: tuple[str, str, int], parts: SplitResult, allowed: Callable[[str], None] | None
    ) -> tuple[Connection, bool]:
        with self._lock:
            if some := self._idle.get(key):
                connection = some.pop()
                self._live.add(connection)
                return connection, True
        scheme, host, port = key
        proxy = self._proxy(scheme, parts.netloc.rpartition("@")[2])
        try:
            target = parsed(proxy) if proxy else None
        except BadAddress as error:
            raise UsageError(f"the proxy {shown(proxy)!r} is none", why=error.why,
                             hint=f"{scheme}_proxy or all_proxy in the environment names it") from error  # fmt: skip
        first = (target.hostname or "", target.port or 8080) if target else (host, port)
        if scheme == "https":
            client: http.client.HTTPConnection = http.client.HTTPSConnection(
                *first, timeout=IDLE_S, context=self._tls(parts.netloc)
            )
        else:
            client = http.client.HTTPConnection(*first, timeout=IDLE_S)
        if target:
            client.set_tunnel(host, port)
        client.response_class = _Response
        handles: list[socket.socket] = []

        def begun(sock: socket.socket) -> None:
            handles.append(sock.dup())
            with self._lock:
                self._begun.add(handles[-1])
            if self.is_shut.is_set():
                raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))

        # The address that was looked at is the one that is connected to: a name may mean another one a moment later.
        client._create_connection = lambda *_, **__: _connected(*first, None if target else allowed, begun)  # type: ignore[attr-defined]
        connection = Connection(self, key, client)
        try:
            client.connect()
            with self._lock:
                self._live.add(connection)
        except ssl.SSLCertVerificationError as error:
            raise _untrusted(parts.netloc, error) from error
        finally:
            with self._lock:
                self._begun.difference_update(handles)
                for each in handles:
                    each.close()
        return connection, False

    def _proxy(self, scheme: str, netloc: str) -> str:
        environ = {name.lower(): value for name, value in self._environ.items()}
        proxies = {"no": environ.get("no_proxy", "")}
        found = environ.get(f"{scheme}_proxy") or environ.get("all_proxy", "")
        if not found or urllib.request.proxy_bypass_environment(netloc, proxies):  # type: ignore[attr-defined]
            return ""
        return found if "://" in found else f"http://{found}"

    def _release(self, connection: Connection) -> None:
        with self._lock:
            self._live.discard(connection)
            if connection.http.sock is not None and not self.is_shut.is_set():
                self._idle.setdefault(connection.key, []).append(connection)
                return
        connection.http.close()

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._live.discard(connection)
        connection.http.close()


def _untrusted(netloc: str, error: ssl.SSLCertVerificationError) -> BadCertificate:
    """What to do depends on what it lacks (X509_STORE_CTX_get_error(3))."""
    if error.verify_code in _OF_ANOTHER_NAME:
        hint = "ask for the registry by a name that is in its certificate"
    elif error.verify_code in _OUT_OF_TIME:
        hint = "whoever keeps the registry renews it; or is this machine's clock wrong?"
    else:
        hint = (
            f"put its CA into ~/.config/nbcontain/certs.d/{netloc}/ca.crt, or have SSL_CERT_FILE name it, "
            "or name the registry in [registries] insecure of ~/.config/nbcontain/config.toml"
        )
    return BadCertificate(f"the certificate of {netloc} is not trusted", why=error.verify_message, hint=hint)


def _connected(
    host: str, port: int, allowed: Callable[[str], None] | None, begun: Callable[[socket.socket], None]
) -> socket.socket:
    """A socket connected to one of a name's addresses; `begun` is given each before it is, and may raise OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Unreachable(
            f"there is no host {host}",
            why=error.strerror or "",
            hint="is the registry's name right? is there a network?",
        ) from error
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        if allowed is not None:
            allowed(str(address[0]))
        sock = socket.socket(family, kind, protocol)
        try:
            begun(sock)
            sock.settimeout(_CONNECT_S)
            sock.connect(address)
            sock.settimeout(IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            failure = error
            sock.close()
    raise failure
