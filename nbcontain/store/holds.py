"""Locks that belong to an open file: they go with its descriptor, and can be asked for without being taken."""

from __future__ import annotations

import fcntl
import os
import struct

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from pathlib import Path

OFD_LOCK = struct.Struct("hhqqi4x")
"""What fcntl(2) is told of a lock that belongs to an open file description."""
_ALONE = OFD_LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def is_held(fd: int) -> bool:
    """Whether somebody else holds an open file description's lock (fcntl_locking(2)) on this file.

    Such a lock can be asked for without being taken, and goes with the descriptor to another process.
    """
    return bool(OFD_LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _ALONE))[0] != fcntl.F_UNLCK)


def is_held_at(path: str | Path) -> bool:
    """The same of a file by its name; one that is not there is nobody's."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return is_held(fd)
    finally:
        os.close(fd)
