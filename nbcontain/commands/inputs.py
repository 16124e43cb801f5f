"""What `build PATH -f FILE` is told to build from: a context, and a Dockerfile in it, elsewhere or on stdin."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nbcontain.build.context import MAX_DOCKERFILE_BYTES, MAX_IGNORE_BYTES, Context
from nbcontain.build.graph import RemoteFile
from nbcontain.build.named import Inside, remote_of
from nbcontain.build.sources import Source
from nbcontain.errors import BuildError, UsageError
from nbcontain.values import dataclass

_NAME = "Dockerfile"


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """A Dockerfile, or where it will be; the context; and the text that stands for its .dockerignore."""

    dockerfile: str | Inside | RemoteFile
    context: Source | None
    ignore: str | None = None
    name: str = _NAME
    """What the Dockerfile is called."""


def inputs_of(path: str, file: str) -> BuildInputs:
    """What these two words mean, as docker takes them. Reads standard input. Raises UsageError."""
    if file == path == "-":
        raise UsageError("standard input cannot be both the Dockerfile and the context")
    if path == "-":
        # An archive is read more than once, so standard input is kept until the build is over.
        data = sys.stdin.buffer.read()
        if not file and _is_text(data):
            # As with docker: what comes in is the Dockerfile itself, and the context has nothing in it.
            return BuildInputs(data.decode("utf-8-sig", "surrogateescape"), {})
        return _inside(file, data)
    directory = Path(path)
    if not os.path.isdir(directory):
        context = directory if os.path.isfile(directory) else remote_of(path)
        if context is None:
            from nbcontain.build.http import redacted

            raise UsageError(
                f"there is no directory {redacted(path)}",
                hint="A directory, a tar file, a URL, or - for standard input",
            )
        # The Dockerfile lies in there.
        if file == "-":
            return BuildInputs(sys.stdin.read(), context)
        return _inside(file, context)
    if file == "-":
        return BuildInputs(sys.stdin.read(), directory)
    if file.startswith(("http://", "https://")):
        return BuildInputs(RemoteFile(file, _NAME), directory)
    return _local(directory, file)


def _inside(file: str, context: Source) -> BuildInputs:
    """A Dockerfile that lies in the context, as with docker; what is not there may be a file of this machine."""
    path = Path(file or _NAME)
    here = None
    if path.is_absolute() or (file and os.path.isfile(path)):
        try:
            here = _read(path)
        except (OSError, UnicodeDecodeError) as error:
            if path.is_absolute():
                why = getattr(error, "strerror", None) or str(error)
                raise UsageError(f"cannot read the Dockerfile {file}", why=why, hint="-f FILE names another") from error
    if here is not None and path.is_absolute():
        return BuildInputs(here, context, name=path.name)
    return BuildInputs(Inside(str(path), here), context, name=str(path))


def _local(directory: Path, file: str) -> BuildInputs:
    """The file may lie anywhere; its own .dockerignore lies beside it.

    Without -f the directory may be somebody else's: symlinks of its Dockerfile lead nowhere out of it.
    """
    if not file and (found := _in(directory)) is not None:
        return found
    path = Path(file) if file else directory / _NAME
    hint = "-f FILE names another"
    if file and not os.path.exists(path) and os.path.isfile(directory / file):
        hint = f"-f is seen from here, and not from the context:  -f {directory / file}"
    try:
        text = _read(path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        shown = path if file else f"of {directory.absolute()}"
        raise UsageError(f"cannot read the Dockerfile {shown}", why=why, hint=hint) from error
    own = Path(f"{path}.dockerignore")
    try:
        ignore = own.read_text(encoding="utf-8", errors="surrogateescape") if os.path.isfile(own) else None
    except OSError as error:
        raise UsageError(f"cannot read {own}", why=error.strerror or "") from error
    return BuildInputs(text, directory, ignore, path.name)


def _in(directory: Path) -> BuildInputs | None:
    """The Dockerfile of a context, or dockerfile; None if there is none. Raises UsageError."""
    context = Context(directory)
    for name in (_NAME, _NAME.lower()):
        try:
            data = context.read(name, MAX_DOCKERFILE_BYTES)
            if data is None:
                continue
            beside = context.read(f"{name}.dockerignore", MAX_IGNORE_BYTES)
            ignore = None if beside is None else beside.decode("utf-8", "surrogateescape")
            return BuildInputs(data.decode("utf-8-sig"), directory, ignore, name)
        except (BuildError, UnicodeDecodeError) as error:
            why = getattr(error, "why", "") or str(error)
            raise UsageError(f"cannot read the Dockerfile {directory / name}", why=why) from error
    if any(os.path.lexists(directory / name) for name in (_NAME, _NAME.lower())):
        raise UsageError(
            f"cannot read the Dockerfile {directory / _NAME}", why="it is no file, or leads out of the directory",
            hint="-f FILE names another",
        )  # fmt: skip
    return None


def _read(path: Path) -> str:
    """A Dockerfile of this machine. Raises OSError, UnicodeDecodeError, UsageError."""
    with path.open("rb") as file:
        data = file.read(MAX_DOCKERFILE_BYTES + 1)
    if len(data) > MAX_DOCKERFILE_BYTES:
        raise UsageError(
            f"the Dockerfile {path} is larger than {MAX_DOCKERFILE_BYTES >> 20} MiB", hint="-f FILE names another"
        )
    return data.decode("utf-8-sig")


def _is_text(data: bytes) -> bool:
    """Whether it can be a Dockerfile: no archive, compressed or not, is free of NUL bytes."""
    return b"\0" not in data[:4096]
