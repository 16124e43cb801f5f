"""What another process's epoll(7) tells of: read of its /proc, and added under that process's numbers. The answerer."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from nbcontain.linux import syscalls


def registered(fdinfo: bytes, inode: int) -> list[tuple[int, int, int]]:
    """Under which numbers an epoll knows the file with this inode, with its events and data (proc(5)). Pure."""
    found = []
    for line in fdinfo.splitlines():
        words = line.replace(b":", b": ").split()
        said = dict(zip(words[::2], words[1::2], strict=False))
        if said.get(b"tfd:") and said.get(b"ino:") and int(said[b"ino:"], 16) == inode:
            found.append((int(said[b"tfd:"]), int(said[b"events:"], 16), int(said[b"data:"], 16)))
    return found


def add_as(epoll: int, end: int, number: int, events: int, data: int) -> None:
    """Add `end` to an epoll as the descriptor `number`, by which it knows it, too. Raises OSError.

    Whatever has that number here is put aside for a moment: this is the only thread.
    """
    if end == number:
        syscalls.epoll_add(epoll, number, events, data)
        return
    kept = -1
    try:
        kept = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError as error:
        if error.errno != errno.EBADF:
            # It could not be put back.
            raise
    try:
        os.dup2(end, number, inheritable=False)
        syscalls.epoll_add(epoll if epoll != number else kept, number, events, data)
    finally:
        if kept >= 0:
            os.dup2(kept, number, inheritable=False)
            os.close(kept)
        else:
            with suppress(OSError):
                os.close(number)
