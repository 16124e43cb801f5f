"""Who a build is to the servers that it gets files from: the ssh agent, and what it was given in secrets for them.

Names and meaning are BuildKit's: HTTP_AUTH_HEADER_<host> and HTTP_AUTH_TOKEN_<host> for files, GIT_AUTH_HEADER and
GIT_AUTH_TOKEN, with .<host> behind them for one host alone, for repositories. Nothing of it goes to another host.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from nbcontain.build.secrets import Secret
from nbcontain.errors import BuildError
from nbcontain.values import dataclass, field

_ANY_HOST = ("GIT_AUTH_HEADER", "GIT_AUTH_TOKEN")


@dataclass(frozen=True, slots=True)
class Access:
    """Secrets by id, and sockets and keys of ssh agents by id."""

    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_file(self, url: str) -> str:
        """The Authorization header for a URL; "" for none. Raises BuildError."""
        for host in _hosts(url):
            if header := self._text(f"HTTP_AUTH_HEADER_{host}"):
                return header
            if token := self._text(f"HTTP_AUTH_TOKEN_{host}"):
                return f"Bearer {token}"
        return ""

    def to_repository(self, url: str) -> str:
        """The same for a git repository that is reached by http or https."""
        if not url.startswith(("http://", "https://")):
            return ""
        for suffix in (*(f".{host}" for host in _hosts(url)), ""):
            if header := self._text(f"GIT_AUTH_HEADER{suffix}"):
                return header
            if token := self._text(f"GIT_AUTH_TOKEN{suffix}"):
                return "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode()
        return ""

    def for_named_hosts(self) -> Access:
        """The same for a server that somebody else chose: what is meant for any host is not for that one."""
        return Access({name: each for name, each in self.secrets.items() if name not in _ANY_HOST}, self.ssh)

    def _text(self, name: str) -> str:
        secret = self.secrets.get(name)
        if secret is None:
            return ""
        text = secret.read().decode("utf-8", "replace").strip()
        if not text.isprintable():
            # Whatever stands in it is not quoted.
            raise BuildError(f"the secret {name} cannot be a header", why="it has control characters in it")
        return text


def _hosts(url: str) -> tuple[str, ...]:
    """The host of a URL: with its port, if it says one, and without."""
    parts = urlsplit(url)
    return tuple(dict.fromkeys(each for each in (parts.netloc.rpartition("@")[2], parts.hostname or "") if each))
