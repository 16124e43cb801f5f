"""A directory's changes as an OCI layer: the same tree always gives the same bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from nbcontain.errors import StoreError
from nbcontain.linux.directories import open_directory
from nbcontain.store import files, tar
from nbcontain.store.owners import NODE, OWNER, Ledger
from nbcontain.store.rooted_links import RootedLinks
from nbcontain.store.tar_writing import header_of
from nbcontain.store.whiteouts import OPAQUE, WHITEOUT, is_opaque, is_whiteout, join, kept_xattrs, opaque_xattr

_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_READ_BYTES = 1 << 20
_SMALL_BYTES = 128 << 10
"""Files of more than that go into a pipe by reference."""
_TOGETHER_BYTES = 256 << 10


Send = Callable[[int, int], int]
"""Takes so many bytes of an open file from where it stands, or fewer: how many; 0 where it cannot, and at the end."""


class Pipe:
    """Where a tar goes: few writes for many small things, and large files by reference to the kernel's pages of them
    (splice(2)), so that their bytes are copied once, by whoever reads them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = bytearray()
        self._can_splice = True

    def write(self, data: bytes) -> None:
        """Some more; it may wait for what follows."""
        self._waiting += data
        if len(self._waiting) >= _TOGETHER_BYTES:
            self.flush()

    def send(self, file: int, count: int) -> int:
        """See `Send`."""
        if not self._can_splice:
            return 0
        self.flush()
        try:
            return os.splice(file, self._fd, count)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EAGAIN):
                raise
            # A file system whose files cannot be, or no pipe; or gVisor of 2022, which does not wait for a full one.
            self._can_splice = False
            return 0

    def flush(self) -> None:
        """Write what waits."""
        files.write(self._fd, self._waiting)
        self._waiting = bytearray()


def tar_of(
    root: str,
    write: Callable[[bytes], object],
    *,
    overlay: bool,
    userxattr: bool,
    skip: frozenset[str] = frozenset(),
    ledger: Ledger | None = None,
    send: Send | None = None,
    links: RootedLinks | None = None,
) -> int:
    """Write what is in `root` as a layer; the number of entries. The same tree always gives the same bytes.

    With a `ledger` the owners and devices that were recorded are the true ones. `send` may take the bytes of large
    files (see `Pipe`), `links` tells where symlinks lead.

    `overlay` says that whiteouts are in overlayfs' form; else a device 0/0 is an error. `skip` are
    paths to leave out, directories only if nothing else is in them. Ids are as the caller sees
    them. Times are whole seconds, sockets are left out, and the root itself has no entry.
    """
    packer = Packer(root, write, opaque_xattr(userxattr=userxattr), overlay, ledger, send, links)
    return packer.finish(skip)


class Packer:
    """One run of `tar_of`. `tree_changes` has one that leaves out what is as it was."""

    def __init__(
        self, root: str, write: Callable[[bytes], object], opaque: bytes, overlay: bool, ledger: Ledger | None,
        send: Send | None = None, links: RootedLinks | None = None,
    ) -> None:  # fmt: skip
        self._ledger, self._links = ledger, links
        self._root = root
        self._write = write
        self._send = send
        self._opaque_xattr = opaque
        self._overlay = overlay
        self._names: dict[tuple[int, int], bytes] = {}
        """The first name of each file that has several."""
        self._count = 0

    def finish(self, skip: frozenset[str]) -> int:
        """Write all of it, and the archive's end; the number of entries."""
        count = self.pack(frozenset(os.fsencode(path).strip(b"/") for path in skip))
        self._write(bytes(2 * tar.BLOCK))
        return count

    def pack(self, skip: frozenset[bytes]) -> int:
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # One directory is open at a time, whatever the depth; its subdirectories wait here, last first.
            waiting: list[bytes] = [b""]
            held: list[tuple[bytes, bytes]] = []
            while waiting:
                path = waiting.pop()
                while held and not path.startswith(held[-1][0] + b"/"):
                    held.pop()
                try:
                    fd = open_directory(path or b".", root)
                except FileNotFoundError:
                    continue
                try:
                    header = self._directory_header(fd, path)
                    if path in skip:
                        held.append((path, header))
                        header = b""
                    waiting.extend(reversed(self._contents(fd, path, header, held, skip)))
                finally:
                    os.close(fd)
            return self._count
        finally:
            os.close(root)

    def _emit(self, data: bytes, held: list[tuple[bytes, bytes]]) -> None:
        """Write an entry, after those directories above it that were held back to see whether they are needed."""
        for _, header in held:
            self._write(header)
            self._count += 1
        held.clear()
        self._write(data)
        self._count += 1

    def _directory_header(self, fd: int, path: bytes) -> bytes:
        if not path:
            return b""
        return header_of(self._entry_of(path + b"/", tar.DIRECTORY, os.fstat(fd), fd))

    def _contents(
        self, fd: int, path: bytes, header: bytes, held: list[tuple[bytes, bytes]], skip: frozenset[bytes]
    ) -> list[bytes]:
        """Write a directory and what is in it; the paths of its subdirectories, sorted."""
        if header:
            self._emit(header, held)
        if self._overlay and path and is_opaque(fd, self._opaque_xattr):
            self._emit(header_of(empty(join(path, OPAQUE))), held)
        below = []
        with os.scandir(fd) as listing:
            found = sorted((os.fsencode(entry.name), _kind_of(entry)) for entry in listing)
        for name, kind in found:
            child = join(path, name)
            if kind == _IS_DIRECTORY:
                below.append(child)
            elif child not in skip:
                # Removed meanwhile; or listed and not there, as an overlay has it of whiteouts that hide nothing.
                with suppress(FileNotFoundError):
                    if kind == _IS_FILE:
                        self._pack_file(fd, name, child, held)
                    else:
                        self._pack_special(fd, name, child, held)
        return below

    def _pack_special(self, parent: int, name: bytes, path: bytes, held: list[tuple[bytes, bytes]]) -> None:
        """A symlink, a device, a pipe; or what is none of these any more by now."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = status.st_mode
        if self._overlay and is_whiteout(status):
            head = path[: len(path) - len(name)]
            self._emit(header_of(empty(head + WHITEOUT + name)), held)
            return
        if stat.S_ISSOCK(mode):
            return
        if stat.S_ISREG(mode):
            self._pack_file(parent, name, path, held)
            return
        if self._is_twin(parent, name, status, path, held):
            return
        if stat.S_ISLNK(mode):
            entry = self._entry_of(path, tar.SYMLINK, status)
            entry.mode = 0o777
            leads_to = os.readlink(name, dir_fd=parent)
            entry.link = self._links.told(leads_to) if self._links is not None else leads_to
        elif stat.S_ISFIFO(mode):
            entry = self._entry_of(path, tar.FIFO, status)
        elif is_whiteout(status):
            # Overlays refuse to make one. In a layer it would hide what is below on some machines and not on others.
            raise StoreError(
                f"/{os.fsdecode(path)} is a device with the number 0/0",
                why="that stands for a removed file: no layer can hold one",
            )
        else:
            entry = self._entry_of(path, tar.CHARACTER if stat.S_ISCHR(mode) else tar.BLOCK_DEVICE, status)
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._emit(header_of(entry), held)

    def _is_twin(
        self, parent: int, name: bytes, status: os.stat_result, path: bytes, held: list[tuple[bytes, bytes]]
    ) -> bool:
        """Whether it is a further name of something that is in the archive; then that is all that is said of it."""
        if status.st_nlink == 1:
            return False
        first = self._names.setdefault((status.st_dev, status.st_ino), path)
        if first is path:
            return False
        entry = self._linked(parent, name, path, status)
        entry.link = first
        self._emit(header_of(entry), held)
        return True

    def _pack_file(self, parent: int, name: bytes, path: bytes, held: list[tuple[bytes, bytes]]) -> None:
        fd = os.open(name, _OLD_FILE, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                # It was one when the directory was read.
                self._pack_special(parent, name, path, held)
                return
            if self._is_twin(parent, name, status, path, held):
                return
            entry = self._entry_of(path, tar.REGULAR, status, fd)
            if self._ledger is not None and (node := self._ledger.node(fd, path, status)) is not None:
                kind, entry.major, entry.minor = node
                entry.kind = tar.CHARACTER if kind == "c" else tar.BLOCK_DEVICE
                self._emit(header_of(entry), held)
                return
            entry.size = left = status.st_size
            header = header_of(entry)
            if left <= (_SMALL_BYTES if self._send else _READ_BYTES):
                data = os.read(fd, left) if left else b""
                left -= len(data)
                self._emit(header + data + (bytes(-len(data) % tar.BLOCK) if not left else b""), held)
                if not left:
                    return
            else:
                self._emit(header, held)
                while self._send and left and (count := self._send(fd, left)):
                    left -= count
            while left:
                # A file that somebody cut meanwhile is filled up: the header has promised its size.
                data = os.read(fd, min(left, _READ_BYTES)) or bytes(min(left, _READ_BYTES))
                self._write(data)
                left -= len(data)
            self._write(bytes(-entry.size % tar.BLOCK))
        finally:
            os.close(fd)

    def _linked(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> tar.Entry:
        """A further name of a file. It says of the file what the first one said."""
        if self._ledger is None or not stat.S_ISREG(status.st_mode):
            return self._entry_of(path, tar.LINK, status)
        fd = os.open(name, _OLD_FILE, dir_fd=parent)
        try:
            entry = self._entry_of(path, tar.LINK, status, fd)
            entry.xattrs = {}
            return entry
        finally:
            os.close(fd)

    def _entry_of(self, name: bytes, kind: bytes, status: os.stat_result, fd: int | None = None) -> tar.Entry:
        """`fd` is open for what carries attributes."""
        seconds = status.st_mtime_ns // 1_000_000_000
        mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
        xattrs = kept_xattrs(fd) if fd is not None else {}
        if self._ledger is not None:
            owner = self._ledger.owner(fd, name.rstrip(b"/"), status)
            for recorded in (OWNER, NODE):
                xattrs.pop(recorded, None)
        return tar.Entry(name, kind, mode, *owner, 0, seconds * 1_000_000_000, xattrs=xattrs)


_IS_OTHER, _IS_FILE, _IS_DIRECTORY = 0, 1, 2


def _kind_of(entry: os.DirEntry[str]) -> int:
    """By what the directory says of it, without a look at the thing itself."""
    if entry.is_file(follow_symlinks=False):
        return _IS_FILE
    return _IS_DIRECTORY if entry.is_dir(follow_symlinks=False) else _IS_OTHER


def empty(name: bytes) -> tar.Entry:
    """The entry that a whiteout is."""
    return tar.Entry(name, tar.REGULAR, 0, 0, 0, 0, 0)
