"""What `build PATH -f FILE` is told to build from: a context, and a Dockerfile in it, elsewhere or on stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from nbcontain.build.graph import RemoteFile
from nbcontain.build.named import Inside, remote_of
from nbcontain.build.sources import Source
from nbcontain.errors import UsageError
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
            # As with docker: what comes in is the Dockerfile itself, and there is no context.
            return BuildInputs(data.decode("utf-8-sig", "surrogateescape"), None)
        return BuildInputs(Inside(file or _NAME), data, name=file or _NAME)
    directory = Path(path)
    if not directory.is_dir():
        context = directory if directory.is_file() else remote_of(path)
        if context is None:
            from nbcontain.build.http import redacted

            raise UsageError(
                f"there is no directory {redacted(path)}",
                hint="A directory, a tar file, a URL, or - for standard input",
            )
        # The Dockerfile lies in there.
        if file == "-":
            return BuildInputs(sys.stdin.read(), context)
        return BuildInputs(Inside(file or _NAME), context, name=file or _NAME)
    if file == "-":
        return BuildInputs(sys.stdin.read(), directory)
    if file.startswith(("http://", "https://")):
        return BuildInputs(RemoteFile(file, _NAME), directory)
    return _local(directory, file)


def _local(directory: Path, file: str) -> BuildInputs:
    """The file may lie anywhere; its own .dockerignore lies beside it."""
    path = Path(file) if file else directory / _NAME
    if not file and not path.exists() and (directory / _NAME.lower()).is_file():
        path = directory / _NAME.lower()
    hint = "-f FILE names another"
    if file and not path.exists() and (directory / file).is_file():
        hint = f"-f is seen from here, and not from the context:  -f {directory / file}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read the Dockerfile {path}", why=why, hint=hint) from error
    own = path.with_name(f"{path.name}.dockerignore")
    try:
        ignore = own.read_text(encoding="utf-8", errors="surrogateescape") if own.is_file() else None
    except OSError as error:
        raise UsageError(f"cannot read {own}", why=error.strerror or "") from error
    return BuildInputs(text, directory, ignore, path.name)


def _is_text(data: bytes) -> bool:
    """Whether it can be a Dockerfile: no archive, compressed or not, is free of NUL bytes."""
    return b"\0" not in data[:4096]
