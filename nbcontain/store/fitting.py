"""An unpacked layer becomes one with what it lies on, before it gets its name: its `seams`, and its ledger.

Run by a worker, in which the layer is the root.
"""

from __future__ import annotations

import errno
import os
import stat

from nbcontain.linux import trees
from nbcontain.store.owners import Ledger
from nbcontain.store.seams import Seams
from nbcontain.store.whiteouts import is_opaque, is_whiteout, kept_xattrs, opaque_xattr

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def fit(root: int, below: int, seams: Seams, *, userxattr: bool) -> frozenset[bytes]:
    """Settle those of the layer that is open as `root`; `below` shows all that it lies on, and is -1 for nothing.

    Gives the directories that are by now what they are below.
    """
    opaque = _Opaque(root, opaque_xattr(userxattr=userxattr))
    for path in seams.hiding:
        fd = _opened(root, path)
        if fd < 0:
            continue
        try:
            if not _is_there(below, path) or opaque.hides(path, itself=True):
                _remove_whiteouts(fd)
        finally:
            os.close(fd)
    same = set()
    # The deepest first: whoever may not enter one would not come to what is in it.
    for path in sorted(seams.unnamed, reverse=True):
        fd, there = _opened(root, path), _opened(below, path)
        try:
            if fd >= 0 and there >= 0 and not opaque.hides(path):
                _become(fd, there)
                same.add(path)
        finally:
            for each in {fd, there} - {-1}:
                os.close(each)
    return frozenset(same)


def fit_ledger(root: int, same: frozenset[bytes], ledger: Ledger, below: Ledger) -> None:
    """Take back in a layer's ledger what those below say of paths that it has itself, but for what is the same."""

    def is_there(path: bytes) -> bool:
        if path in same:
            return False
        try:
            os.stat(path, dir_fd=root, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return False
        return True

    ledger.supersede(below, is_there)


class _Opaque:
    """Which directories of a layer hide what is below them; each is asked once."""

    def __init__(self, root: int, xattr: bytes) -> None:
        self._root, self._xattr = root, xattr
        self._known: dict[bytes, bool] = {}

    def hides(self, path: bytes, *, itself: bool = False) -> bool:
        """Whether one above this hides what is below, or this one `itself`."""
        if itself and self._is_opaque(path):
            return True
        while path:
            path = path.rpartition(b"/")[0]
            if self._is_opaque(path):
                return True
        return False

    def _is_opaque(self, path: bytes) -> bool:
        if path not in self._known:
            fd = _opened(self._root, path)
            try:
                self._known[path] = is_opaque(fd, self._xattr)
            finally:
                os.close(fd)
        return self._known[path]


def _opened(root: int, path: bytes) -> int:
    """A directory below this one; -1 where there is none."""
    if root < 0:
        return -1
    try:
        return trees.open_beneath(root, os.fsdecode(path), _DIRECTORY)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return -1
        raise


def _is_there(root: int, path: bytes) -> bool:
    fd = _opened(root, path)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _remove_whiteouts(fd: int) -> None:
    times_ns = os.fstat(fd).st_mtime_ns
    for name in map(os.fsencode, os.listdir(fd)):
        if is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False)):
            os.unlink(name, dir_fd=fd)
    os.utime(fd, ns=(times_ns, times_ns))


def _become(fd: int, there: int) -> None:
    """Owner, mode, attributes and time of a directory are another's."""
    mine, status = os.fstat(fd), os.fstat(there)
    if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    for name, value in kept_xattrs(there).items():
        os.setxattr(fd, name, value)
    os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
