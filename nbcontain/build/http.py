"""Files of http and https servers, for ADD and as contexts: fetched once, and asked for again by their ETag.

Whoever writes a Dockerfile says which server is asked; a server does not. A redirect may not lead from a public
address to one of this machine's or its network's, nor to anything but http and https. A name could still answer with
another address the next time it is asked (DNS rebinding): that is not prevented here.
"""

from __future__ import annotations

import email.utils
import hashlib
import ipaddress
import json
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

from nbcontain import authorities
from nbcontain.build.access import Access
from nbcontain.build.graph import RemoteFile
from nbcontain.errors import BuildError
from nbcontain.events import Emit, Progress
from nbcontain.oci.digest import Digest
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.values import dataclass

if TYPE_CHECKING:
    import httpx

_MAX_REDIRECTS = 10
_MAX_BYTES = 256 << 30
_TIMEOUT_S = 60.0
_RECORD_BYTES = 64 << 10
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was fetched: where its bytes are, and when it was last changed, in seconds since the epoch or 0."""

    path: Path
    digest: Digest
    modified: int

    def place(self, target: Path) -> None:
        """Make it a file of mode 0600 at `target`, with its own time."""
        try:
            os.link(self.path, target)
        except OSError:
            files.write_new(target, self.path.read_bytes())
            os.utime(target, (self.modified, self.modified))


def redacted(url: str) -> str:
    """A URL without the user and password in it, to be shown and kept."""
    return _USER_INFO.sub("", url)


def file_name(url: str) -> str:
    """What a file is called that nobody named: the last part of the URL's path; "" if there is none."""
    name = urlsplit(url).path.rstrip("/").rpartition("/")[2]
    return name if name not in (".", "..") and "\0" not in name else ""


def fetched(remote: RemoteFile, layout: Layout, access: Access, emit: Emit) -> Fetched:
    """The file as it is now, downloaded unless it is here already. Raises BuildError."""
    directory = layout.downloads
    files.make_directory(directory)
    name = Digest.of(f"{remote.url}\n{remote.checksum}".encode()).hex
    known = _known(directory, name)
    if known is not None and remote.checksum:
        # What is named by its content does not change.
        return known[0]
    with files.lock(directory / "lock", exclusive=True):
        return _download(remote, directory, name, _known(directory, name), access, emit)


def _known(directory: Path, name: str) -> tuple[Fetched, str] | None:
    """What was fetched before, and its ETag."""
    try:
        record = json.loads(files.read(directory / f"{name}.json", _RECORD_BYTES))
        digest = Digest.parse(record["digest"])
        path = directory / digest.hex
        path.stat()
        return Fetched(path, digest, int(record["modified"])), str(record["etag"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _download(
    remote: RemoteFile, directory: Path, name: str, known: tuple[Fetched, str] | None, access: Access, emit: Emit
) -> Fetched:
    try:
        import httpx
    except ImportError as error:
        raise BuildError("files of servers need httpx", hint="pip install httpx") from error
    shown = redacted(remote.url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "nbcontain"}
    if known is not None and known[1]:
        headers["If-None-Match"] = known[1]
    trusted = authorities.context(os.environ)
    try:
        with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=True, verify=trusted) as client:
            url, was_public = remote.url, is_public(remote.url)
            authorization = access.to_file(url)
            for _ in range(_MAX_REDIRECTS):
                who = {"Authorization": authorization} if authorization and _server(url) == _server(remote.url) else {}
                with client.stream("GET", url, headers=headers | who) as response:
                    if response.status_code == 304 and known is not None:
                        return known[0]
                    if response.is_redirect:
                        url = _redirect(shown, url, response.headers["location"], was_public)
                        continue
                    if response.status_code != 200:
                        raise BuildError(f"{shown} answers {response.status_code} {response.reason_phrase}")
                    return _stored(remote, response, directory, name, emit)
            raise BuildError(f"{shown} redirects in circles")
    except httpx.HTTPError as error:
        why = _ERRNO.sub("", redacted(str(error))) or type(error).__name__
        raise BuildError(f"cannot get {shown}", why=why) from error
    except httpx.InvalidURL as error:
        raise BuildError(f"{shown} is no URL", why=str(error)) from error


def _stored(remote: RemoteFile, response: httpx.Response, directory: Path, name: str, emit: Emit) -> Fetched:
    digest = hashlib.sha256()
    modified = _time_of(response.headers.get("last-modified", ""))
    size = 0
    with files.temporary(directory) as (path, fd):
        for chunk in response.iter_raw(1 << 18):
            digest.update(chunk)
            files.write(fd, chunk)
            size += len(chunk)
            emit(Progress("", size))
            if size > _MAX_BYTES:
                raise BuildError(f"{redacted(remote.url)} does not end")
        found = Digest("sha256", digest.hexdigest())
        if remote.checksum and str(found) != remote.checksum:
            raise BuildError(
                f"{redacted(remote.url)} is not what --checksum says",
                why=f"it has the digest {found}, and {remote.checksum} is wanted",
            )
        os.utime(fd, (modified, modified))
        files.move(path, directory / found.hex)
    record = {"digest": str(found), "modified": modified, "etag": response.headers.get("etag", "")}
    files.replace(directory / f"{name}.json", json.dumps(record).encode(), durable=False)
    return Fetched(directory / found.hex, found, modified)


def _time_of(text: str) -> int:
    try:
        return max(0, int(email.utils.parsedate_to_datetime(text).timestamp()))
    except (ValueError, TypeError, OverflowError):
        return 0


def _server(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what credentials are for."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _redirect(shown: str, url: str, location: str, was_public: bool) -> str:
    following = urljoin(url, location)
    if urlsplit(following).scheme not in ("http", "https"):
        raise BuildError(f"{shown} redirects to {redacted(following)[:200]}", why="only http and https are followed")
    if was_public and not is_public(following):
        raise BuildError(
            f"{shown} redirects to {redacted(following)[:200]}",
            why="a server outside may not choose an address of this machine or its network",
        )
    if _server(following) != _server(url):
        return following
    parts = urlsplit(following)
    user_info = urlsplit(url).netloc.rpartition("@")
    # Credentials stay with the host that they were given for.
    return urlunsplit(parts._replace(netloc=f"{user_info[0]}@{parts.netloc}")) if user_info[1] else following


def is_public(url: str) -> bool:
    """Whether every address of the URL's host is one of the internet's. Raises BuildError for metadata services."""
    host = urlsplit(url).hostname or ""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        # Somebody else resolves it, such as a proxy.
        return True
    addresses = [ipaddress.ip_address(str(address).partition("%")[0]) for address in found]
    if any(address.is_link_local for address in addresses):
        raise BuildError(f"{host} is a link-local address", why="that is where clouds keep credentials")
    return all(address.is_global for address in addresses)
