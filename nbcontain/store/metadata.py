"""Owner, mode, attributes and time of what is unpacked; what the disk refuses is recorded or counted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from nbcontain.linux.directories import open_directory
from nbcontain.store import tar
from nbcontain.store.owners import NODE, OWNER, Ledger, Record
from nbcontain.store.whiteouts import join

_NO_ID = 0xFFFF_FFFF
_OWNER_REFUSED = frozenset({errno.EINVAL, errno.EPERM})
_XATTR_REFUSED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.E2BIG, errno.ENOSPC, errno.ERANGE, errno.EACCES})


class Metadata:
    """What is set on the files of one tree, and what could not be.

    `keeps_owners` says that there is more than one id here. Paths are relative bytes, `path` of the directory that
    `leaf` is in.
    """

    def __init__(self, *, keeps_owners: bool, ledger: Ledger | None) -> None:
        self.lost_owners = self.lost_xattrs = 0
        self.keeps_owners = keeps_owners
        self._ledger = ledger
        self._own: tuple[int, int] | None = None
        """Whom new files belong to, as seen on the first one."""

    @property
    def own(self) -> tuple[int, int] | None:
        """Whom new files belong to; None for as long as that is not known."""
        return self._own if self.keeps_owners else (0, 0)

    @property
    def records(self) -> bool:
        """Whether there is a ledger for what the disk refuses."""
        return self._ledger is not None

    def set(self, fd: int, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """For a file that is open, and was made with the mode of this entry."""
        usual = self.keeps_owners and (entry.uid, entry.gid) == self._own and entry.kind == tar.REGULAR
        if not usual or entry.mode & 0o7000 or entry.xattrs:
            self._set(fd, path, leaf, entry, has_mode=True)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def set_directory(self, parent: int, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """For a directory that nothing more is made in; without a leaf it is `parent`. Raises NotADirectoryError."""
        name, times = leaf or b".", (entry.mtime_ns, entry.mtime_ns)
        if self.keeps_owners and not entry.xattrs:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            wanted = (stat.S_IFDIR | entry.mode, entry.uid, entry.gid)
            if (status.st_mode, status.st_uid, status.st_gid) == wanted:
                # Made as it should be: it need not be opened.
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
                return
        fd = open_directory(name, parent)
        try:
            self._set(fd, path, leaf, entry, has_mode=False)
            os.utime(fd, ns=times)
        finally:
            os.close(fd)

    def _set(self, fd: int, path: bytes, leaf: bytes, entry: tar.Entry, *, has_mode: bool) -> None:
        """All but the time."""
        owner = self._owner(entry, lambda: os.fstat(fd))
        is_kept = self.keeps_owners
        if owner is not None:
            try:
                os.fchown(fd, *owner)
            except OSError as error:
                if error.errno not in _OWNER_REFUSED:
                    raise
                is_kept = False
        if not is_kept or entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            self._keep(fd, path, leaf, entry)
        if not has_mode or owner is not None or entry.mode & 0o7000 or not self.keeps_owners:
            os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self._set_xattrs(fd, entry)

    def set_at(self, parent: int, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """For what cannot be opened: symlinks, FIFOs, devices."""
        owner = self._owner(entry, lambda: os.stat(leaf, dir_fd=parent, follow_symlinks=False))
        is_kept = self.keeps_owners
        if owner is not None:
            try:
                os.chown(leaf, *owner, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _OWNER_REFUSED:
                    raise
                is_kept = False
        os.utime(leaf, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        if not is_kept:
            self._keep(None, path, leaf, entry)

    def _owner(self, entry: tar.Entry, status: Callable[[], os.stat_result]) -> tuple[int, int] | None:
        """Whom to give it to; None if it is its maker's already, or cannot be another's."""
        if not self.keeps_owners:
            return None
        owner = (entry.uid, entry.gid)
        if self._own is None:
            new = status()
            self._own = (new.st_uid, new.st_gid)
        return None if owner == self._own else owner

    def _keep(self, fd: int | None, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """Record an owner and a device that the disk does not show. `fd` is None for what carries no attributes."""
        is_device = entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE)
        if not is_device and (entry.uid, entry.gid) == (0, 0):
            if self._ledger is not None:
                # A directory may have been somebody's before; all else is new, and only its name may have been.
                self._ledger.forget(fd if entry.kind == tar.DIRECTORY else None, join(path, leaf))
            return
        if self._ledger is None or not 0 <= min(entry.uid, entry.gid) <= max(entry.uid, entry.gid) < _NO_ID:
            # A program that was to run as its owner must not run as another instead.
            self.lost_owners += 1
            if entry.kind != tar.DIRECTORY:
                entry.mode &= 0o1777
            return
        kind = "c" if entry.kind == tar.CHARACTER else "b"
        node = (kind, entry.major, entry.minor) if is_device else None
        time = entry.mtime_ns if fd is None else None
        self._ledger.record(fd, join(path, leaf), Record(entry.uid, entry.gid, node, time))

    @property
    def remembers(self) -> bool:
        """Whether some names are somebody's by the ledger."""
        return self._ledger is not None and self._ledger.remembers

    def belongs_to_root(self, path: bytes) -> None:
        """What has this name is new, and is whose it is on the disk."""
        if self._ledger is not None:
            self._ledger.forget(None, path)

    def link(self, source: bytes, path: bytes) -> None:
        """What has this name is what has that one, too."""
        if self._ledger is not None:
            self._ledger.link(source, path)

    def _set_xattrs(self, fd: int, entry: tar.Entry) -> None:
        for name, value in entry.xattrs.items():
            if self._ledger is not None and name in (OWNER, NODE):
                continue
            try:
                os.setxattr(fd, name, value)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno not in _XATTR_REFUSED:
                    raise
                self.lost_xattrs += 1
