"""What a program reads on its standard input, where that is something of ours: text, bytes, a file."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from nbcontain.errors import UsageError
from nbcontain.store import files


@contextmanager
def opened(given: Any, *, interactive: bool) -> Iterator[int | None]:
    """A descriptor to read it from; None where the program has nothing to read.

    `interactive` hands this process's own through where nothing else is given. Raises UsageError for what cannot be
    read.
    """
    if given is None:
        yield 0 if interactive else None
    elif isinstance(given, os.PathLike):
        with _file(given) as file:
            yield file.fileno()
    else:
        yield from _fed(bytes_of(given))


def asked(question: str, *, secret: bool = False, otherwise: str = "") -> str:
    """What somebody types; a `secret` is not shown. Raises UsageError, with `otherwise` to try, where nobody can be
    asked: there is no more to read, or this is a notebook that runs by itself."""
    try:
        if not secret:
            return input(question)
        import getpass

        return getpass.getpass(question)
    except _refusals() as error:
        what = question.rstrip(": ")
        raise UsageError(f"nobody can be asked: {what}", why="there is no standard input", hint=otherwise) from error


def _refusals() -> tuple[type[Exception], ...]:
    """What says that: a terminal's end, and a kernel whose client takes no questions (messaging.html, allow_stdin)."""
    core = sys.modules.get("IPython.core.error")
    return (EOFError,) if core is None else (EOFError, core.StdinNotImplementedError)


def bytes_of(given: Any) -> bytes:
    """Text or bytes, or the file that a Path names, as bytes. Raises UsageError."""
    match given:
        case str():
            return given.encode()
        case bytes() | bytearray() | memoryview():
            return bytes(given)
        case Path():
            with _file(given) as file:
                return file.read()
    raise UsageError(f"a {type(given).__name__} cannot be read", hint="text, bytes, or a pathlib.Path")


def _file(path: os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or "") from error


def _fed(data: bytes) -> Iterator[int]:
    """The reading end of a pipe that a thread fills for as long as anybody reads."""
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def feed() -> None:
        try:
            files.write(writing, data)
        except BrokenPipeError:
            return
        finally:
            os.close(writing)

    threading.Thread(target=feed, name="nbcontain stdin", daemon=True).start()
    try:
        yield reading
    finally:
        os.close(reading)
