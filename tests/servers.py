"""Servers on this machine for tests: HTTP with ETags and redirects, whatever answers, and waiting for others."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    """What an HTTP server gives, and what it was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, int]] = []
        self.headers: list[dict[str, str]] = []
        self._answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

    def put(self, path: str, data: bytes, *, etag: str = "", modified: str = "Sun, 06 Nov 1994 08:49:37 GMT") -> None:
        """Without `modified` the answer does not say when it was last changed."""
        headers = ({"Last-Modified": modified} if modified else {}) | ({"ETag": etag} if etag else {})
        self._answers[path] = (200, headers, data)

    def redirect(self, path: str, to: str) -> None:
        self._answers[path] = (302, {"Location": to}, b"")

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        status, given, data = self._answers.get(path.partition("?")[0], (404, {}, b""))
        if given.get("ETag") and headers.get("If-None-Match") == given["ETag"]:
            status, data = 304, b""
        self.asked.append((path, status))
        self.headers.append(headers)
        return status, given, data


@contextmanager
def serving() -> Iterator[Server]:
    """An HTTP server on loopback for as long as this lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            status, headers, data = server.answer(self.path, dict(self.headers))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        http.shutdown()


@contextmanager
def answering(listener: socket.socket, answer: Callable[[socket.socket], object]) -> Iterator[None]:
    """Whoever connects there is answered, one after the other, for as long as this lasts."""

    def serve() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            with end:
                answer(end)

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


def wait_for_port(port: int, timeout_s: float = 10) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextmanager
def docker_registry(
    directory: Path, program: str = "docker-registry", *, http: str = "", more: str = ""
) -> Iterator[int]:
    """A docker-registry on loopback, which keeps what it is sent in `directory`/registry; gives its port.

    `http` and `more` are further lines of its configuration, below http: and besides.
    """
    port, config = free_port(), directory / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{http}{more}"
    )
    server = subprocess.Popen(
        [program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port)
        yield port
    finally:
        server.terminate()
        server.wait()
