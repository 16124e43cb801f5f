"""What was changed in a whole tree since it was copied: as a layer's tar, and path by path."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from nbcontain.linux import trees
from nbcontain.linux.directories import open_directory
from nbcontain.store.changes import Added, Change, Deleted, Modified, above, same_metadata
from nbcontain.store.owners import Ledger
from nbcontain.store.pack import Packer, Send, empty
from nbcontain.store.rooted_links import RootedLinks
from nbcontain.store.tar_writing import header_of
from nbcontain.store.tree_index import Noted, TreeIndex, noted
from nbcontain.store.whiteouts import OPAQUE, WHITEOUT, join, kept_xattrs

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Literal

    State = Literal["same", "changed", "replaced", "new"]
else:
    State = str

"""A directory is the one below with nothing changed about itself, with something, another, or there was none."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_READ_BYTES = 1 << 20


class Comparison:
    """A tree beside the one that it was copied from. Paths are relative bytes, b"" is the root.

    `below` is the original's directory, -1 where there is none: then everything is new. Without a usable index, which
    is one of this `boot`, files are compared as such, with their contents; symlinks by what `links` tells of them.
    """

    def __init__(
        self, root: int, below: int, index: bytes | None, boot: str, links: RootedLinks | None = None
    ) -> None:
        self._below, self.links = below, links
        self._index: TreeIndex | None = None
        if index is not None:
            try:
                self._index = TreeIndex(index, root, boot)
            except (ValueError, TypeError, KeyError, RecursionError):
                self._index = None

    def names(self, path: bytes) -> frozenset[bytes]:
        """What was in a directory."""
        if self._below < 0:
            return frozenset()
        if self._index is not None:
            return frozenset(self._index.directories.get(path, ()))
        fd = self._opened_below(path)
        if fd < 0:
            return frozenset()
        try:
            return frozenset(map(os.fsencode, os.listdir(fd)))
        finally:
            os.close(fd)

    def state(self, parent: int, path: bytes, name: bytes, *, is_quiet: bool = False) -> State:
        """Of a directory `name` in `path`, which is open as `parent` and was there before, as was its name.

        A quiet one has not changed if only its time has: something of ours was made in it.
        """
        found = self._state(parent, path, name)
        return "same" if found == "changed" and is_quiet and self.has_same_metadata(parent, path, name) else found

    def _state(self, parent: int, path: bytes, name: bytes) -> State:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        known = self._noted(path, name)
        if known is not None:
            lasting = self._index is not None and self._index.has_lasting_numbers
            if not stat.S_ISDIR(known[4]) or (lasting and known[0] != status.st_ino):
                return "replaced"
            return "same" if noted(status)[1:] == known[1:] else "changed"
        there = self._status_below(path, name)
        if there is None or not stat.S_ISDIR(there.st_mode):
            return "replaced"
        same = status.st_mtime_ns == there.st_mtime_ns and self.has_same_metadata(parent, path, name)
        return "same" if same else "changed"

    def has_same_metadata(self, parent: int, path: bytes, name: bytes) -> bool:
        """Whether mode, owner and attributes of a directory are as they were, whatever its time."""
        there = self._opened_below(join(path, name))
        if there < 0:
            return False
        here = open_directory(name, parent)
        try:
            return same_metadata(os.fstat(here), os.fstat(there)) and kept_xattrs(here) == kept_xattrs(there)
        finally:
            os.close(here)
            os.close(there)

    def is_same(self, parent: int, path: bytes, name: bytes) -> bool:
        """Whether anything but a directory, whose name was there before, is as it was."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if self._index is None:
            return self._is_same_below(parent, path, name, status)
        known = self._noted(path, name)
        if known is None:
            return False
        is_file = stat.S_ISREG(status.st_mode)
        if self._index.is_linked and is_file and stat.S_ISREG(known[4]):
            return known[0] == status.st_ino
        if noted(status) != known:
            return False
        return self._index.is_trusted or not is_file or self._is_same_below(parent, path, name, status)

    def _noted(self, path: bytes, name: bytes) -> Noted | None:
        return None if self._index is None else self._index.directories.get(path, {}).get(name)

    def _opened_below(self, path: bytes) -> int:
        if self._below < 0:
            return -1
        try:
            return trees.open_beneath(self._below, os.fsdecode(path), _DIRECTORY)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return -1
            raise

    def _status_below(self, path: bytes, name: bytes) -> os.stat_result | None:
        fd = self._opened_below(path)
        if fd < 0:
            return None
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(fd)

    def _is_same_below(self, parent: int, path: bytes, name: bytes, status: os.stat_result) -> bool:
        below = self._opened_below(path)
        if below < 0:
            return False
        try:
            there = os.stat(name, dir_fd=below, follow_symlinks=False)
            if not same_metadata(status, there) or status.st_mtime_ns != there.st_mtime_ns:
                return False
            if stat.S_ISLNK(status.st_mode):
                here = os.readlink(name, dir_fd=parent)
                return (self.links.told(here) if self.links else here) == os.readlink(name, dir_fd=below)
            if not stat.S_ISREG(status.st_mode):
                return status.st_rdev == there.st_rdev
            return status.st_size == there.st_size and _same_file(parent, below, name)
        except FileNotFoundError:
            return False
        finally:
            os.close(below)


def _same_file(one: int, other: int, name: bytes) -> bool:
    here = os.open(name, _OLD_FILE, dir_fd=one)
    try:
        there = os.open(name, _OLD_FILE, dir_fd=other)
        try:
            if kept_xattrs(here) != kept_xattrs(there):
                return False
            while data := os.read(here, _READ_BYTES):
                while data:
                    # Pieces may come in other sizes.
                    part = os.read(there, len(data))
                    if not part or data[: len(part)] != part:
                        return False
                    data = data[len(part) :]
            return not os.read(there, 1)
        finally:
            os.close(there)
    finally:
        os.close(here)


class TreePacker(Packer):
    """Writes what was changed in a tree as a layer, with the bytes that the same changes in an overlay would give."""

    def __init__(
        self, root: str, write: Callable[[bytes], object], ledger: Ledger | None, comparison: Comparison,
        quiet: frozenset[bytes], send: Send | None = None,
    ) -> None:  # fmt: skip
        """`quiet` are directories whose time may have changed since something of ours was made in them."""
        super().__init__(root, write, b"", False, ledger, send, comparison.links)
        self._comparison = comparison
        self._quiet = quiet
        self._states: dict[bytes, State] = {b"": "same"}

    def _contents(
        self, fd: int, path: bytes, header: bytes, held: list[tuple[bytes, bytes]], skip: frozenset[bytes]
    ) -> list[bytes]:
        state = self._states.pop(path)
        if header:
            if state == "same":
                held.append((path, header))
            else:
                self._emit(header, held)
        if state == "replaced":
            self._emit(header_of(empty(join(path, OPAQUE))), held)
        before = self._comparison.names(path) if state in ("same", "changed") else frozenset()
        with os.scandir(fd) as listing:
            found = {os.fsencode(entry.name): entry.is_dir(follow_symlinks=False) for entry in listing}
        below = []
        for name in sorted(before | found.keys()):
            child = join(path, name)
            if name not in found:
                if child not in skip:
                    self._emit(header_of(empty(join(path, WHITEOUT + name))), held)
            elif found[name]:
                quiet = child in self._quiet
                self._states[child] = (
                    self._comparison.state(fd, path, name, is_quiet=quiet) if name in before else "new"
                )
                below.append(child)
            elif child not in skip and not (name in before and self._comparison.is_same(fd, path, name)):
                self._pack_special(fd, name, child, held)
        return below


def tree_changes(root: int, comparison: Comparison, skip: frozenset[str] = frozenset()) -> Iterator[Change]:
    """What was changed in a tree, as `changes.changes` says it of an overlay; paths absolute, sorted."""
    quiet = above(skip)
    skipped = frozenset(os.fsencode(path).strip(b"/") for path in skip)
    waiting: list[tuple[bytes, State]] = [(b"", "same")]
    held: list[bytes] = []
    while waiting:
        path, state = waiting.pop()
        while held and not path.startswith(held[-1] + b"/"):
            held.pop()
        before = comparison.names(path) if state != "new" else frozenset()
        if path:
            if state == "same":
                held.append(path)
            elif path not in skipped:
                yield from _released(held)
                yield Added(_shown(path)) if state == "new" else Modified(_shown(path))
        fd = trees.open_beneath(root, os.fsdecode(path), _DIRECTORY)
        try:
            with os.scandir(fd) as listing:
                found = {os.fsencode(entry.name): entry.is_dir(follow_symlinks=False) for entry in listing}
            inner: list[tuple[bytes, State]] = []
            for name in sorted(before | found.keys()):
                child = join(path, name)
                is_new = name not in before or state == "replaced"
                if name not in found:
                    if child not in skipped:
                        yield from _released(held)
                        yield Deleted(_shown(child))
                elif found[name]:
                    is_quiet = child in quiet
                    inner.append((child, "new" if is_new else comparison.state(fd, path, name, is_quiet=is_quiet)))
                elif child not in skipped and (is_new or not comparison.is_same(fd, path, name)):
                    yield from _released(held)
                    yield Added(_shown(child)) if is_new else Modified(_shown(child))
        finally:
            os.close(fd)
        waiting.extend(reversed(inner))


def _released(held: list[bytes]) -> Iterator[Change]:
    """The directories above a change, which were not told of yet."""
    yield from (Modified(_shown(path)) for path in held)
    held.clear()


def _shown(path: bytes) -> str:
    return os.fsdecode(b"/" + path)
