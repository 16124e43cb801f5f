"""What is about to be removed: its name is free at once, and no sweep takes it for a dead one's while that goes on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nbcontain.store import files
from nbcontain.values import dataclass


@dataclass(frozen=True)
class Aside:
    """A renamed file or directory, with the descriptor that holds its lock as those of `files.temporary` are held.

    The descriptor is -1 where it cannot be held: on NFS a directory has no lock of its own. A sweep may then remove it
    at the same time, which harms neither.
    """

    path: Path
    fd: int

    def remove(self, remove_tree: Callable[[Path], None]) -> None:
        """Have it removed; what is left then is the next sweep's."""
        try:
            remove_tree(self.path)
        finally:
            if self.fd >= 0:
                os.close(self.fd)


def set_aside(path: Path, tmp: Path) -> Aside:
    """Rename what is at `path` into the directory `tmp`, unsynced. Raises FileNotFoundError if nothing is there."""
    fd = -1
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    aside = Aside(tmp / f".tmp-{os.urandom(8).hex()}", fd)
    try:
        files.move(path, aside.path)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return aside
