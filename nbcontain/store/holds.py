"""Locks that belong to an open file: they go with its descriptor, and can be asked for without being taken."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from pathlib import Path

_OFD_LOCK = struct.Struct("hhqqi4x")
"""What fcntl(2) is told of a lock that belongs to an open file description."""
_ALONE = _OFD_LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_TRIES, _AGAIN_S = 10, 0.01


def take(fd: int) -> None:
    """Hold an open file description's lock (fcntl_locking(2)) on this file. Raises BlockingIOError if somebody does.

    Such a lock can be asked for without being taken, and goes with the descriptor to another process.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _ALONE)
    except PermissionError as error:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _take_whole(fd)


def _take_whole(fd: int) -> None:
    """In gVisor, which has none of these: flock(2), which whoever asks for it takes for a moment."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_AGAIN_S)


def is_held(fd: int) -> bool:
    """Whether somebody else holds such a lock on this file."""
    try:
        return bool(_OFD_LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _ALONE))[0] != fcntl.F_UNLCK)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


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
