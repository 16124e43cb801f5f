"""One file or directory as a tar, under a name of one's choice: what `cp` sends, in and out of containers.

Walked by descriptors: whoever changes the tree meanwhile leads nobody out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection

from nbcontain.linux.directories import open_directory
from nbcontain.store import tar
from nbcontain.store.tar_writing import header_of

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20
_KINDS = {stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFDIR: b"5",
          stat.S_IFIFO: b"6"}  # fmt: skip

Write = Callable[[bytes], object]


def write_tree(
    parent: int, leaf: bytes, name: bytes, write: Write, empty: Collection[tuple[int, int]] = ()
) -> int:  # fmt: skip
    """Write `leaf` of the open directory `parent` as `name`, with all that is in it; gives the number of entries.

    With the name b"." what is in a directory is written, and not itself. Sockets are left out, and what is in the
    directories below it that have these devices and inodes. Raises OSError.
    """
    packer = _Packer(write, empty)
    packer.take(parent, leaf, name, is_asked=True)
    write(bytes(2 * tar.BLOCK))
    return packer.count


class _Packer:
    def __init__(self, write: Write, empty: Collection[tuple[int, int]]) -> None:
        self.count = 0
        self._empty = empty
        self._write = write
        self._names: dict[tuple[int, int], bytes] = {}

    def take(self, parent: int, leaf: bytes, name: bytes, *, is_asked: bool = False) -> None:
        status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        mode, time_ns = stat.S_IMODE(status.st_mode), status.st_mtime_ns
        entry = tar.Entry(name, kind, mode, status.st_uid, status.st_gid, 0, time_ns)
        if kind == b"5":
            if not is_asked and (status.st_dev, status.st_ino) in self._empty:
                entry.name += b"/"
                self._put(entry)
                return
            self._directory(parent, leaf, entry)
            return
        if status.st_nlink > 1 and (first := self._names.setdefault((status.st_dev, status.st_ino), name)) != name:
            entry.kind, entry.link = b"1", first
        elif kind == b"0":
            self._file(parent, leaf, entry)
            return
        elif kind == b"2":
            entry.link = os.readlink(leaf, dir_fd=parent)
        elif kind in b"34":
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._put(entry)

    def _put(self, entry: tar.Entry) -> None:
        self._write(header_of(entry))
        self.count += 1

    def _directory(self, parent: int, leaf: bytes, entry: tar.Entry) -> None:
        fd = open_directory(leaf, parent)
        try:
            if entry.name != b".":
                inside = entry.name + b"/"
                entry.name = inside
                self._put(entry)
            else:
                inside = b""
            for each in sorted(map(os.fsencode, os.listdir(fd))):
                try:
                    self.take(fd, each, inside + each)
                except FileNotFoundError:
                    # Removed meanwhile.
                    continue
        finally:
            os.close(fd)

    def _file(self, parent: int, leaf: bytes, entry: tar.Entry) -> None:
        fd = os.open(leaf, _OPEN, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "it is another file by now", os.fsdecode(leaf))
            entry.size = left = status.st_size
            self._put(entry)
            while left:
                data = os.read(fd, min(left, _CHUNK_BYTES))
                if not data:
                    # It became shorter: its size is said already.
                    data = bytes(min(left, _CHUNK_BYTES))
                self._write(data)
                left -= len(data)
            self._write(bytes(-entry.size % tar.BLOCK))
        finally:
            os.close(fd)
