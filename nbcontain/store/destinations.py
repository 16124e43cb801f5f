"""Files that people name, to be written: archives, a build's outputs, what is copied out.

A regular file appears whole or stays what it was, wherever links lead to it. What is none, a device or a pipe, is
written to: it would be lost if another file took its place.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from nbcontain.errors import DiskFull, StoreError, UsageError
from nbcontain.store import files

STDOUT = "-"
_MODE = 0o644


@contextmanager
def opened(
    destination: Path | str | int, *, hint: str = "-o FILE says where it goes"
) -> Iterator[Callable[[bytes], None]]:
    """What writes to a file, to what is open by that descriptor, or for "-" to standard output unless that is a
    terminal.

    Raises StoreError, DiskFull, DiskFailed; UsageError with `hint` for a terminal.
    """
    if isinstance(destination, int):
        yield lambda data: files.write(destination, data)
        return
    if destination == STDOUT:
        with _standard_output(hint) as write:
            yield write
        return
    path = _led_to(Path(destination).absolute())
    try:
        if path is None:
            with files.disk(destination), _as_it_is(destination) as write:
                yield write
            return
        with files.disk(path.parent), files.temporary(path.parent, _MODE) as (temporary, fd):
            yield lambda data: files.write(fd, data)
            files.move(temporary, path)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise StoreError(f"cannot write {destination}", why=error.strerror or "") from error


def write(destination: Path | str, data: bytes) -> None:
    """A small file. Raises OSError, StoreError, DiskFull, DiskFailed."""
    path = _led_to(Path(destination).absolute())
    if path is not None:
        files.replace(path, data, _MODE, durable=False)
        return
    with files.disk(destination), _as_it_is(destination) as write:
        write(data)


def _led_to(path: Path) -> Path | None:
    """Where a file is to appear; None where something is that no file may take the place of."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return Path(os.path.realpath(path))
    if stat.S_ISDIR(mode):
        return path
    real = Path(os.path.realpath(path))
    # A link in /proc leads to what is open, which may have no name any more.
    return real if stat.S_ISREG(mode) and real.exists() and real.samefile(path) else None


@contextmanager
def _as_it_is(path: Path | str) -> Iterator[Callable[[bytes], None]]:
    fd = files.open_as_it_is(path)
    try:
        yield lambda data: files.write(fd, data)
    finally:
        os.close(fd)


@contextmanager
def _standard_output(hint: str) -> Iterator[Callable[[bytes], None]]:
    stream = cast(IO[bytes] | None, getattr(sys.stdout, "buffer", None))
    if stream is None or sys.stdout.isatty():
        raise UsageError("an archive is nothing to look at", hint=hint)

    # Past the stream's buffer: what that could not write it would try to write again when the process ends.
    end = getattr(stream, "raw", stream)

    def write(data: bytes) -> None:
        rest = memoryview(data)
        with _told():
            while rest:
                if written := end.write(rest):
                    rest = rest[written:]
                else:  # somebody who has it, too, wants never to wait
                    select.select([], [end], [])

    with _told():
        stream.flush()
    yield write
    with _told():
        end.flush()


@contextmanager
def _told() -> Iterator[None]:
    """Whoever has stopped reading is heard of as ever: that is no error of anybody's."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in files.FULL:
            raise DiskFull("no room left for what goes to standard output", why=error.strerror or "") from error
        raise StoreError("cannot write to standard output", why=error.strerror or "") from error
