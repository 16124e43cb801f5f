"""Pages of servers in containers, asked for inside of their networks: ports need not be published. `engine.pages`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from nbcontain.errors import ContainerError, NotRunning
from nbcontain.runtime.container import Container
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

LIMIT_BYTES = 4 << 20
"""What one answer may hold; the rest of it is left away."""
_TIMEOUT_S = 10.0
_REDIRECTS = 5
_COOKIES = 50
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from nbcontain.runtime.visitor import main; main(int(sys.argv[2]))"
)


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answered."""

    path: str
    """Where it was found in the end."""
    status: int
    kind: str
    """Its media type, as in text/html; charset=utf-8."""
    data: bytes
    is_cut: bool = False


class Visit:
    """Somebody who looks at one port of a container, with the cookies that it was given. Safe among threads."""

    def __init__(self, container: Container, port: int) -> None:
        self.container, self.port = container, port
        self._lock = threading.Lock()
        self._cookies: dict[str, str] = {}

    def fetch(self, path: str, method: str = "GET", body: str = "", kind: str = "") -> Page:
        """Ask for a path; redirects to the same server are followed. Raises ContainerError, NotRunning."""
        for _ in range(_REDIRECTS):
            said, data = self._asked(path, method, body, kind)
            headers = {name.lower(): value for name, value in said["headers"]}
            self._remember(said["headers"])
            target = headers.get("location", "")
            if said["status"] not in (301, 302, 303, 307, 308) or not target:
                return Page(path, said["status"], headers.get("content-type", ""), data, said["cut"])
            path = self._followed(path, target)
            if said["status"] in (301, 302, 303):
                method, body = "GET", ""
        raise ContainerError(f"{path} goes on leading elsewhere", why=f"more than {_REDIRECTS} redirects")

    def _followed(self, path: str, target: str) -> str:
        """The path that a redirect leads to. Raises ContainerError for another server, and for no address."""
        try:
            there = urlsplit(urljoin(f"http://localhost:{self.port}{path}", target))
            is_here = there.hostname in ("localhost", "127.0.0.1") and (there.port or 80) == self.port
        except ValueError as error:
            raise ContainerError(f"{path} leads to what is no address", why=target[:300]) from error
        if not is_here:
            raise ContainerError(f"{path} leads to another server", why=target[:300])
        return (there.path or "/") + (f"?{there.query}" if there.query else "")

    def _asked(self, path: str, method: str, body: str, kind: str) -> tuple[dict[str, Any], bytes]:
        pid = self.container.pid
        if pid is None:
            raise NotRunning(f"{self.container.name} is not running", hint=f"%container start {self.container.name}")
        headers = {"Host": f"localhost:{self.port}", "Accept": "*/*", "Accept-Encoding": "identity"}
        with self._lock:
            cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        headers |= {"Cookie": cookie} if cookie else {}
        headers |= {"Content-Type": kind} if kind else {}
        order = {"port": self.port, "path": path, "method": method, "body": body, "headers": headers,
                 "limit": LIMIT_BYTES, "timeout_s": _TIMEOUT_S}  # fmt: skip
        package = str(Path(__file__).resolve().parents[1])
        # None of this process's environment: it stands in the container's network, and answers decide what it reads.
        words = [sys.executable, "-I", "-S", "-c", _PROGRAM, package, str(pid)]
        try:
            done = subprocess.run(words, input=json.dumps(order).encode() + b"\n", capture_output=True,
                                  timeout=2 * _TIMEOUT_S, check=False, env={})  # fmt: skip
            line, _, data = done.stdout.partition(b"\n")
            said = json.loads(line)
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise ContainerError(f"nothing came from port {self.port} of {self.container.name}") from error
        if "error" in said:
            raise ContainerError(
                f"port {self.port} of {self.container.name} does not answer", why=said["error"],
                hint=f"%container logs {self.container.name}",
            )  # fmt: skip
        return said, data

    def _remember(self, headers: list[tuple[str, str]]) -> None:
        with self._lock:
            for name, value in headers:
                key, sign, rest = value.partition(";")[0].partition("=")
                if name.lower() == "set-cookie" and sign and len(self._cookies) < _COOKIES and len(value) < 4096:
                    self._cookies[key.strip()] = rest.strip()


def forwarded(environ: Mapping[str, str], port: int) -> str:
    """Where a browser elsewhere finds a port of this machine that its host forwards; "" where that is not known.

    By a name of its own for each port only (GitHub Codespaces, code-server with VSCODE_PROXY_URI=https://{{port}}.…):
    under a path of the notebook's own server, as jupyter-server-proxy has it, a container's page would have all rights
    of the notebook; at another port of the same name it would still be sent the notebook's cookies (RFC 6265, 8.5).
    """
    name, domain = environ.get("CODESPACE_NAME", ""), environ.get("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN", "")
    if name and domain:
        return f"https://{name}-{port}.{domain}"
    template = environ.get("VSCODE_PROXY_URI", "")
    try:
        parts, others = (urlsplit(template.replace("{{port}}", str(each))) for each in (port, port + 1))
    except ValueError:
        return ""
    return parts.geturl().rstrip("/") if parts.scheme in ("http", "https") and parts.hostname != others.hostname else ""


class Pages:
    """Opens ports of containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def visit(self, container: Container, port: int) -> Visit:
        """Somebody who looks at that port."""
        return Visit(container, port)

    def guess(self, container: Container) -> int:
        """The port that is meant where none is said: the first that is published or exposed. Raises ContainerError."""
        ports = [each.container_port for each in self._engine.networks.ports(container)]
        exposed = self._engine.networks.wish_of(container).exposed
        ports += [int(each.partition("/")[0]) for each in exposed if each.partition("/")[0].isdecimal()]
        if not ports:
            hint = f"%container open {container.name}:8000"
            raise ContainerError(f"which port of {container.name}? none is published or exposed", hint=hint)
        return ports[0]

    def address(self, container: Container, port: int | None = None) -> str:
        """Where this machine's own browsers find it, or its first published port; "" where that is not published."""
        ports = (each for each in self._engine.networks.ports(container) if each.protocol == "tcp")
        return next((each.url for each in ports if port in (None, each.container_port)), "")

    def elsewhere(self, container: Container, port: int) -> str:
        """Where browsers of other machines find it; "" where it is not published, or nobody is known to forward it."""
        for each in self._engine.networks.ports(container):
            if each.protocol == "tcp" and each.container_port == port:
                return forwarded(self._engine.environ, each.host_port)
        return ""
