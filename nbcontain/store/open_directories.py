"""The directories of a tree that are open while members of an archive are made in them; the archive is hostile."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable

from nbcontain.errors import BadArchive
from nbcontain.linux.directories import open_directory
from nbcontain.store.whiteouts import is_whiteout, join

LEAF_BYTES = 255
MANY = 128
_SYMLINK_HOPS = 40
_STEPS, _STEPS_OF_ONE = 2_000_000, 64
"""So many directories an archive may go through in all, beyond so many for each that it names: an honest tree is some
twenty deep. Links that lead down and up again make of a name of four bytes a way of tens of thousands."""
_STEPS_TO_MAKE, _LINK_BYTES_OF_ONE = 16, 64
"""One that is made takes as long; so many bytes of a link as long as one."""

Opened = tuple[int, bytes]
"""The fd of a directory, and its path with symlinks resolved: relative bytes without `.` and `..`, b"" is the root."""


def open_at_a_time(most: int) -> int:
    """So many, or a quarter of what this process may have open."""
    return min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


class OpenDirectories:
    """Those below one `root`, which is an fd. A few are open at a time, and all of them until `forget` is called.

    `is_own` tells whether what is at a path came from this archive, `make_opaque` is for a directory that has taken a
    whiteout's place: it gets the fd of the one above, and the name. `made` is told the path of one that had to be made
    and took nothing's place. `leaving` is called before they are closed.
    """

    def __init__(
        self, root: int, is_own: Callable[[bytes], bool], make_opaque: Callable[[int, bytes], None],
        made: Callable[[bytes], None], leaving: Callable[[], None],
    ) -> None:  # fmt: skip
        self._root = root
        self._made = made
        self._is_own = is_own
        self._make_opaque = make_opaque
        self._leaving = leaving
        self._open: dict[bytes, Opened] = {}
        """By the path as asked for."""
        self.many = open_at_a_time(MANY)
        self._steps, self._free = _STEPS, 0
        self.spelled: dict[bytes, Opened] = {}
        """By what stands before the last slash of a member's name, as it stands there."""

    def spelled_at(self, head: bytes) -> Opened:
        """Open the one of which this stands before the last slash of a member's name. Raises as `at`."""
        self.make_room()
        known = self.spelled.get(head)
        if known is None:
            parts = split(head)
            known = self.spelled[head] = self.at(parts, b"/".join(parts))
        return known

    def make_room(self) -> None:
        """Forget them if they are many; to be called where none of them is in use."""
        if max(len(self._open), len(self.spelled)) >= self.many:
            self.forget()

    def at(self, parts: list[bytes], asked: bytes, *, make: bool = True) -> Opened:
        """The directory at `parts`, made if it is missing; symlinks are resolved beneath the root.

        Raises BadArchive where something else stands in the way, or there is no end of it; FileNotFoundError if not
        `make`.
        """
        if (known := self._open.get(asked)) is not None:
            return known
        fd, hops, is_owned, todo = self._root, 0, False, parts[::-1]
        self._free = _STEPS_OF_ONE
        walked: list[bytes] = []
        above = self._open.get(b"/".join(parts[:-1])) if len(parts) > 1 else None
        if above is not None:
            # The usual case: the archive is written directory by directory.
            fd, todo = above[0], parts[-1:]
            walked = split(above[1])
        try:
            while todo:
                part = todo.pop()
                if part == b"..":
                    # Only from a symlink; an entry's own name cannot have it. However many: one goes down once.
                    kept = len(walked) - 1
                    while todo and todo[-1] == b"..":
                        todo.pop()
                        kept -= 1
                    todo.extend(reversed(walked[: max(0, kept)]))
                    walked = []
                    fd, is_owned = self._step(fd, is_owned, self._root), False
                    continue
                self._count(1)
                try:
                    below = open_directory(part, fd)
                except FileNotFoundError:
                    if not make:
                        raise
                    self._count(_STEPS_TO_MAKE)
                    os.mkdir(part, 0o755, dir_fd=fd)
                    self._made(join(b"/".join(walked), part))
                    below = open_directory(part, fd)
                except NotADirectoryError:
                    status = os.stat(part, dir_fd=fd, follow_symlinks=False)
                    if make and not self._is_own(join(b"/".join(walked), part)):
                        # In an overlay the new directory would lie over it.
                        os.unlink(part, dir_fd=fd)
                        todo.append(part)
                        continue
                    if stat.S_ISLNK(status.st_mode):
                        hops += 1
                        if hops > _SYMLINK_HOPS:
                            raise BadArchive(f"too many symlinks in {asked!r}") from None
                        target = os.readlink(part, dir_fd=fd)
                        self._count(len(target) // _LINK_BYTES_OF_ONE)
                        todo.extend(p for p in reversed(target.split(b"/")) if p not in (b"", b"."))
                        if target.startswith(b"/"):
                            walked = []
                            fd, is_owned = self._step(fd, is_owned, self._root), False
                        continue
                    if not make or not is_whiteout(status):
                        raise BadArchive(f"{part!r} in {asked!r} is no directory") from None
                    os.unlink(part, dir_fd=fd)
                    os.mkdir(part, 0o755, dir_fd=fd)
                    self._make_opaque(fd, part)
                    below = open_directory(part, fd)
                fd, is_owned = self._step(fd, is_owned, below), True
                walked.append(part)
        except BaseException:
            self._step(fd, is_owned, self._root)
            raise
        if fd == self._root:
            fd = os.dup(fd)
        found = (fd, b"/".join(walked))
        self._open[asked] = found
        return found

    def _count(self, steps: int) -> None:
        """So many more. Raises BadArchive where they are too many."""
        self._free -= steps
        if self._free >= 0:
            return
        self._steps, self._free = self._steps + self._free, 0
        if self._steps < 0:
            raise BadArchive("the archive leads through too many directories", why="it was made to last for ever")

    @staticmethod
    def _step(fd: int, is_owned: bool, to: int) -> int:
        if is_owned:
            os.close(fd)
        return to

    def forget(self) -> None:
        """Close them all."""
        self._leaving()
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()
        self.spelled.clear()

    def exact(self, path: bytes) -> int:
        """A directory by its resolved path, no symlink on the way. Raises BadArchive where that was asked too often."""
        parts = split(path)
        self._free = 0
        self._count(len(parts))
        fd = os.dup(self._root)
        for part in parts:
            try:
                below = open_directory(part, fd)
            finally:
                os.close(fd)
            fd = below
        return fd


def parted(name: bytes) -> tuple[bytes, bytes]:
    """What stands before the last slash of a member's name, but for one at its end; and behind it."""
    head, _, leaf = name.removesuffix(b"/").rpartition(b"/")
    return head, leaf


def split(name: bytes) -> list[bytes]:
    """The parts of a member's name below the root. Raises BadArchive for `..` and for parts that no disk can hold."""
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise BadArchive(f"{name!r} points out of the archive")
    for part in parts:
        if len(part) > LEAF_BYTES:
            raise BadArchive(f"a file name of {len(part)} bytes")
    return parts
