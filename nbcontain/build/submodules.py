"""Submodules of a repository that was checked out: which there are, at which commits, and from where. Pure.

A repository says itself where its submodules are, and is not trusted: what it names has to be a git URL like any other,
and a server outside may not choose one of this machine or its network.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from nbcontain.build.http import redacted
from nbcontain.errors import BuildError
from nbcontain.values import dataclass

MAX_DEPTH = 8
MAX_COUNT = 200
_GITLINK = "160000"


@dataclass(frozen=True, slots=True)
class Submodule:
    """Where it goes, where it is from, and which commit is wanted."""

    path: str
    url: str
    commit: str


def submodules_of(configured: str, listed: str, parent: str) -> tuple[Submodule, ...]:
    """Those of `git config -z` on .gitmodules and `git ls-tree -rz`, of the repository at the URL `parent`.

    Raises BuildError for places outside of the tree.
    """
    values: dict[str, dict[str, str]] = {}
    for entry in configured.split("\0"):
        key, _, value = entry.partition("\n")
        name, _, field = key.removeprefix("submodule.").rpartition(".")
        if name:
            values.setdefault(name, {})[field] = value
    urls = {each["path"].rstrip("/"): each["url"] for each in values.values() if each.get("path") and each.get("url")}
    found = []
    for path, commit in _links(listed).items():
        if path not in urls:
            raise BuildError(f"{redacted(parent)} does not say where its submodule {path} is")
        parts = path.split("/")
        if path.startswith("/") or any(part.lower() in ("", ".", "..", ".git") for part in parts):
            raise BuildError(f"{redacted(parent)} has a submodule at {path!r}")
        found.append(Submodule(path, resolved(urls[path], parent), commit))
    return tuple(found)


def _links(listed: str) -> Mapping[str, str]:
    """Path → commit of the tree's links to other repositories."""
    found: dict[str, str] = {}
    for entry in listed.split("\0"):
        about, _, path = entry.partition("\t")
        mode, _, rest = about.partition(" ")
        if mode == _GITLINK:
            found[path] = rest.rpartition(" ")[2]
    return found


def resolved(url: str, parent: str) -> str:
    """A submodule's URL, which may be relative to its repository's (gitmodules(5))."""
    if not url.startswith(("./", "../")):
        return url
    base = parent.rstrip("/")
    head, separator, path = base.partition("://")
    # A scp-like name has its path after the colon.
    host, slash, path = path.partition("/") if separator else base.partition(":")
    start = f"{head}://{host}/" if separator else f"{host}{slash}"
    joined = posixpath.normpath(posixpath.join("/", path, url)).lstrip("/")
    return f"{start}{joined}"
