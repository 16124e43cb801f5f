"""What contexts are called on a command line: directories, archives, repositories, URLs, images, layouts.

    PATH | - | https://…/repository.git[#ref[:subdirectory]] | git@… | https://…
    NAME=PATH | NAME=URL | NAME=docker-image://REFERENCE | NAME=oci-layout://DIRECTORY[:tag][@digest]
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from nbcontain.build.graph import RemoteFile, Repository
from nbcontain.build.sources import Source
from nbcontain.errors import BadDigest, BadReference, BuildError, UsageError
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.values import dataclass

CONTEXT_FILE = "context"
"""What a file is called that is a whole context, as BuildKit calls it."""

_HINT = "--build-context NAME=DIRECTORY, a URL, docker-image://NAME or oci-layout://DIRECTORY"
_LAYOUT = re.compile(r"(?P<path>[^@]+?)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>.+))?")


@dataclass(frozen=True, slots=True)
class LayoutImage:
    """An image of an OCI layout on disk: by its digest, its tag, or the only one."""

    path: Path
    tag: str = ""
    digest: Digest | None = None


NamedSource = Source | Reference | Image | LayoutImage


@dataclass(frozen=True, slots=True)
class Inside:
    """A Dockerfile that lies in the context, and is known when that is there."""

    path: str = "Dockerfile"
    otherwise: str | None = None
    """The text that is taken if it is not there."""


def context_name(text: str) -> str:
    """A name as it is compared: alpine, alpine:latest and docker.io/library/alpine are one (BuildKit's dockerui)."""
    name, separator, platform = text.lower().partition("::")
    try:
        name = Reference.parse(name).familiar.removesuffix(":latest")
    except BadReference:
        # No image could be called like this; a stage may.
        pass
    return f"{name}{separator}{platform}"


Contexts = Mapping[str, Image | Reference | None]
"""What a name stands for instead of a stage or an image so called (--build-context): None is a directory of files."""
NO_CONTEXTS: Contexts = {}


@dataclass(frozen=True, slots=True)
class NamedContexts:
    """The contexts by their names, looked up as a build for a platform does."""

    by_name: Contexts
    platform: Platform

    def key(self, name: str) -> str | None:
        """What a stage or an image is called among them; None if it is not there."""
        if not self.by_name or not name:
            return None
        plain = context_name(name)
        return next((key for key in (f"{plain}::{self.platform}", plain) if key in self.by_name), None)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.key(name) is not None

    def given(self, name: str) -> Image | Reference | None:
        """The image that stands for `name`; None if there is none."""
        key = self.key(name)
        return self.by_name[key] if key is not None else None

    def directory(self, name: str) -> str | None:
        """The name of the directory that stands for `name`. A number is a stage's, always."""
        key = None if name.isdecimal() else self.key(name)
        return key if key is not None and self.by_name[key] is None else None

    def is_scratch(self, name: str) -> bool:
        """Whether it is the empty image, under its own name or as a context's."""
        return name == "scratch" if self.key(name) is None else self.given(name) == Reference.parse("scratch")


def remote_of(text: str) -> Repository | RemoteFile | None:
    """The repository or the file of a server that this means; None for something on this machine. Raises UsageError."""
    from nbcontain.build import git

    address = f"https://{text}" if text.startswith("github.com/") else text
    try:
        if git.is_repository(address) or address is not text:
            return git.parse(address)
    except BuildError as error:
        raise UsageError(error.message, why=error.why, hint=error.hint) from error
    return RemoteFile(text, CONTEXT_FILE) if text.startswith(("http://", "https://")) else None


def contexts_of(
    words: tuple[str, ...], known: Mapping[str, Any] | None = None, variables: Mapping[str, object] | None = None
) -> dict[str, NamedSource]:
    """The contexts of --build-context's values. `known` are a notebook's contexts, `variables` its variables.

    Raises UsageError.
    """
    found: dict[str, NamedSource] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"--build-context {word}: a name and what it stands for are wanted", hint=_HINT)
        try:
            Reference.parse(name.lower().partition("::")[0])
        except BadReference as error:
            raise UsageError(f"--build-context {name} is no name", why=error.why, hint=_HINT) from error
        found[context_name(name)] = _named(name, value, known or {}, variables)
    return found


def _named(
    name: str, value: str, known: Mapping[str, Any], variables: Mapping[str, object] | None
) -> NamedSource:
    if value in known:
        return cast(NamedSource, known[value])
    if value.startswith("var:"):
        return cast(NamedSource, variable(f"--build-context {name}={value}", value[4:], variables))
    kind, separator, rest = value.partition("://")
    if separator and kind == "docker-image":
        try:
            return Reference.parse(rest)
        except BadReference as error:
            raise UsageError(f"--build-context {name}: {error.message}", why=error.why, hint=error.hint) from error
    if separator and kind == "oci-layout":
        return _layout(name, rest)
    if remote := remote_of(value):
        return remote
    if value.startswith(("target:", "service:", "input:")) or (separator and kind.isalpha()):
        from nbcontain.build.http import redacted

        raise UsageError(
            f"--build-context {name}={redacted(value)}: there is no such kind of context",
            why="target: is a word of bake files" if value.startswith("target:") else "",
            hint=_HINT,
        )
    path = Path(value).expanduser()
    if not os.path.isdir(path):
        raise UsageError(f"--build-context {name}: there is no directory {value}", hint=_HINT)
    return path


def variable(what: str, name: str, variables: Mapping[str, object] | None) -> Any:
    """A context that a notebook has in a variable: names and what is in them, a path, an image. Raises UsageError."""
    if variables is None:
        raise UsageError(f"{what}: there are no Python variables here")
    value = variables.get(name)
    if not isinstance(value, Mapping | Path | Image | bytes):
        kind = f"{name} is a {type(value).__name__}" if name in variables else f"there is no variable {name}"
        raise UsageError(f"{what}: {kind}", hint="A dict of names and what is in them, a pathlib.Path, or an image")
    return value


def _layout(name: str, text: str) -> LayoutImage:
    match = _LAYOUT.fullmatch(text)
    # A colon may as well be part of the directory's name.
    whole = Path(text.partition("@")[0])
    if match is None or (os.path.isdir(whole) and match["tag"]):
        path, tag, digest = whole, "", text.partition("@")[2]
    else:
        path, tag, digest = Path(match["path"]), match["tag"] or "", match["digest"] or ""
    if not os.path.isdir(path.expanduser()):
        raise UsageError(f"--build-context {name}: there is no directory {path}", hint=_HINT)
    try:
        return LayoutImage(path.expanduser(), tag, Digest.parse(digest) if digest else None)
    except BadDigest as error:
        raise UsageError(f"--build-context {name}: {error.message}", hint=_HINT) from error
