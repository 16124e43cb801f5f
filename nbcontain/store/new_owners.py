"""Whose the new files of a tree are, where the disk says the same of everything: recorded as who made them (`makers`).

What is new is told by when it was made, and not by its other times, which anybody may set.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable

from nbcontain.linux import syscalls, trees
from nbcontain.linux.directories import open_directory
from nbcontain.store import tree_index
from nbcontain.store.makers import Makers
from nbcontain.store.owners import Ledger, Record
from nbcontain.store.whiteouts import is_whiteout, join

_COPIED_UP = b"user.overlay.origin"
"""On what overlayfs has copied since it was to be changed: it is no new file (overlayfs.rst). Symlinks cannot have it,
and files with several names below have not."""
_TELLS_BIRTH = frozenset({*tree_index.TELLS_OF_CHANGES, 0x0102_1994})
"""And tmpfs: by this machine's clock. A server on the network has one of its own."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NONE = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM})


def give(root: int, ledger: Ledger, makers: Makers, below: int = -1, *, is_copy: bool = False) -> int:
    """Record whose the new files are, in an overlay's upper directory or, if it `is_copy`, a whole tree; how many.

    `below` is what the overlay stands on, or what the tree was copied from; -1 where there is nothing. Idempotent: what
    is recorded stays.
    """
    return _Giving(root, ledger, makers, below, is_copy).all()


class _Giving:
    """One run of `give`."""

    def __init__(self, root: int, ledger: Ledger, makers: Makers, below: int, is_copy: bool) -> None:
        self._root, self._ledger, self._makers, self._below, self._is_copy = root, ledger, makers, below, is_copy
        self._since_ns = makers.since_ns
        self._tells_birth = syscalls.file_system_type(root) in _TELLS_BIRTH
        self._count = 0

    def all(self) -> int:
        status = os.fstat(self._root)
        waiting = [(b"", self._ledger.owner(self._root, b"", status))]
        while waiting:
            path, owner = waiting.pop()
            place = trees.open_beneath(self._root, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                waiting += self._in_directory(place, path, owner)
            finally:
                os.close(place)
        return self._count

    def _in_directory(
        self, place: int, path: bytes, owner: tuple[int, int]
    ) -> Iterable[tuple[bytes, tuple[int, int]]]:
        """Its new files; gives its directories, and whose they are."""
        hands_on = bool(os.fstat(place).st_mode & stat.S_ISGID)
        directories = []
        for name in os.listdir(place):
            leaf = os.fsencode(name)
            status = os.stat(leaf, dir_fd=place, follow_symlinks=False)
            if is_whiteout(status):
                continue
            born_ns = syscalls.birth_ns(place, leaf) if self._tells_birth else None
            is_old = born_ns is not None and born_ns < self._since_ns
            is_directory = stat.S_ISDIR(status.st_mode)
            if is_old and not is_directory:
                continue
            child = join(path, leaf)
            can_hold = is_directory or stat.S_ISREG(status.st_mode)
            fd = None
            if can_hold:
                fd = open_directory(leaf, place) if is_directory else os.open(leaf, _FILE, dir_fd=place)
            try:
                known = self._ledger.known(fd, child, status)
                if known is None and not is_old and self._is_new(fd, child, status, born_ns):
                    born_ns = time.time_ns() if born_ns is None else born_ns
                    known = self._makers.of(born_ns, owner, hands_on=hands_on)
                    if known != (0, 0):
                        time_ns = None if can_hold else status.st_mtime_ns
                        self._ledger.record(fd, child, Record(*known, mtime_ns=time_ns))
                        self._count += 1
                if is_directory:
                    directories.append((child, known or (0, 0)))
            finally:
                if fd is not None:
                    os.close(fd)
        return directories

    def _is_new(self, fd: int | None, path: bytes, status: os.stat_result, born_ns: int | None) -> bool:
        """Whether it is no copy of what was there before."""
        if self._is_copy and born_ns is not None:
            return True
        if fd is not None and _has(fd, _COPIED_UP):
            return False
        there = self._status_below(path)
        if there is None or stat.S_IFMT(there.st_mode) != stat.S_IFMT(status.st_mode):
            return True
        if self._is_copy:
            return False
        return there.st_mtime_ns != status.st_mtime_ns if fd is None else there.st_nlink == 1

    def _status_below(self, path: bytes) -> os.stat_result | None:
        if self._below < 0:
            return None
        parent, _, name = path.rpartition(b"/")
        try:
            place = trees.open_beneath(self._below, os.fsdecode(parent), os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            return os.stat(name, dir_fd=place, follow_symlinks=False)
        except OSError:
            return None
        finally:
            os.close(place)


def _has(fd: int, name: bytes) -> bool:
    try:
        os.getxattr(fd, name)
    except OSError as error:
        if error.errno in _NONE:
            return False
        raise
    return True
