"""A file of lines that must not grow for ever: put aside when it is large, and begun anew. `segments` reads such files.

Run by whoever writes them: the supervisor of a container, and anybody who tells of an event.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nbcontain import segments
from nbcontain.store import files

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def rotated(path: Path, keep: int) -> int:
    """Put `path` aside under its number, begin it anew, and remove all but the `keep` newest. Gives it, open.

    Only its one writer may do that, or who holds a lock for it. Raises OSError, StoreError; then `path` is as it was,
    or, on a file system without hard links, made by the next `opened`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = segments.number_of(fd)
    finally:
        os.close(fd)
    fresh = path.with_name(f".{path.name}-{os.urandom(4).hex()}")
    try:
        files.write_new(fresh, segments.head(number + 1))
        _put_aside(path, path.with_name(f"{path.name}.{number}"))
        files.move(fresh, path)
    except BaseException:
        files.unlink(fresh)
        raise
    for each in segments.numbers(path.parent, path.name):
        if each <= number + 1 - keep:
            files.unlink(path.with_name(f"{path.name}.{each}"))
    return opened(path)


def opened(path: Path) -> int:
    """`path` to append to; made, with the number that is its turn, if it is not there. Raises OSError, StoreError."""
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            before = segments.numbers(path.parent, path.name)
        try:
            files.write_new(path, segments.head(before[-1] + 1) if before else b"")
        except FileExistsError:
            continue


def _put_aside(path: Path, aside: Path) -> None:
    """Never without a name: whoever found none there (`opened`) would begin one, which the new one would replace, with
    all that was written to it.
    """
    try:
        files.link(path, aside)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Better a line lost in that moment than a file that grows for ever.
        files.move(path, aside)
