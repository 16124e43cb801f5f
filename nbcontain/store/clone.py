"""A copy of a tree, file by file: what a container writes to where no overlay can be. The tree may mean harm.

Runs in a worker that has the store as its world, whose ids own all the files. Both trees are walked by directory file
descriptors without following a symlink; nobody else writes to either.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from nbcontain.linux import trees
from nbcontain.linux.boot import boot_id
from nbcontain.store import files
from nbcontain.store.rooted_links import RootedLinks
from nbcontain.store.tree_index import write_index
from nbcontain.store.whiteouts import is_kept_xattr, join

_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NO_LINK = frozenset({errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EACCES})
_NO_RANGE = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF})
_XATTR_REFUSED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.E2BIG, errno.ENOSPC, errno.ERANGE, errno.EACCES})
_CHUNK_BYTES = 1 << 30
_SMALL_BYTES = 1 << 16
_CAPABILITY, _OF_A_ROOT_BYTES = b"security.capability", 24
Owner = Callable[[int, int], tuple[int, int]]


def copy_tree(
    root: Path, source: Path, target: Path, index: Path | None, *, linked: bool, links: RootedLinks | None = None
) -> bool:
    """See `copying.CopyTree`: here and now, by whom all of the files belong to."""
    fd = files.open_to_append(index) if index is not None else -1
    try:
        _, is_plain = clone(str(root), str(source.relative_to(root)), str(target.relative_to(root)), fd, linked=linked,
                            boot=boot_id(), links=links)  # fmt: skip
        return is_plain
    finally:
        if fd >= 0:
            os.close(fd)


def clone(
    root: str, source: str, target: str, index: int, *, linked: bool, boot: str, links: RootedLinks | None = None
) -> tuple[int, bool]:
    """Make the empty directory `target` hold what `source` does; both are paths below `root`.

    `target` itself stays what it is, as the upper directory of an overlay does whatever those below are.

    Gives the number of entries, and whether no device is among them.

    `linked` makes hard links of regular files, where that can be. `index`, unless it is -1, is a file that takes what
    was made in this boot; once this returns, whatever is changed can be told by it. Sockets are left out. Symlinks are
    kept as `links` says.
    """
    old_umask = os.umask(0)
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = trees.open_beneath(top, source, _DIRECTORY)
        try:
            made = trees.open_beneath(top, target, _DIRECTORY)
            try:
                copy = _Clone(found, made, linked, links=links)
                copy.run(with_root=False)
                if index >= 0:
                    write_index(made, index, linked=linked, boot=boot)
                return copy.entries, copy.is_plain
            finally:
                os.close(made)
        finally:
            os.close(found)
    finally:
        os.close(top)
        os.umask(old_umask)


def clone_between(source: int, target: int, owner: Owner | None = None) -> int:
    """Make an empty directory what another one is, both open. The number of entries. Nobody writes to either.

    With `owner` the copies belong to whom it says, for each user and group.
    """
    old_umask = os.umask(0)
    try:
        copy = _Clone(source, target, linked=False, owner=owner)
        copy.run(with_root=True)
        return copy.entries
    finally:
        os.umask(old_umask)


def copy_attributes(source: int, target: int, owner: Owner | None = None) -> None:
    """Give an open directory the owner, mode, times and extended attributes of another."""
    status, made = os.fstat(source), os.fstat(target)
    _finish(source, target, status, (made.st_uid, made.st_gid), owner)


class _Clone:
    """One run of `clone`."""

    def __init__(
        self, source: int, target: int, linked: bool, owner: Owner | None = None, links: RootedLinks | None = None
    ) -> None:
        self._source = source
        self._target = target
        self._linked = linked
        self._owner, self._links = owner, links
        made = os.fstat(target)
        self._own = (made.st_uid, made.st_gid)
        """Whom new files belong to, as the empty directory does."""
        self._names: dict[tuple[int, int], bytes] = {}
        """The first name here of each file that has several."""
        self.entries = 0
        self.is_plain = True
        """Nothing that was made is a device."""

    def run(self, *, with_root: bool) -> None:
        waiting, done = [b""], [b""] if with_root else []
        while waiting:
            path = waiting.pop()
            found = self._open(self._source, path)
            try:
                made = self._open(self._target, path)
                try:
                    below = self._contents(found, made, path)
                finally:
                    os.close(made)
            finally:
                os.close(found)
            waiting += below
            done += below
        # Deepest first: nothing changes a directory any more once it has its time.
        for path in reversed(done):
            self._finish_directory(path)

    def _open(self, root: int, path: bytes) -> int:
        if not path:
            return os.open(".", _DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        return trees.open_beneath(root, os.fsdecode(path), _DIRECTORY)

    def _contents(self, found: int, made: int, path: bytes) -> list[bytes]:
        """Everything in one directory; the paths of its directories, which are empty here as yet."""
        below = []
        for text in os.listdir(found):
            name = os.fsencode(text)
            status = os.stat(name, dir_fd=found, follow_symlinks=False)
            self.entries += 1
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                os.mkdir(name, 0o700, dir_fd=made)
                below.append(join(path, name))
            elif kind == stat.S_IFREG:
                self._file(found, made, name, path, status)
            elif kind != stat.S_IFSOCK:
                self._special(found, made, name, path, status)
        return below

    def _is_linked_here(self, made: int, name: bytes, path: bytes, status: os.stat_result) -> bool:
        """Whether this is a further name of a file that was copied already, and got it."""
        if status.st_nlink == 1:
            return False
        first = self._names.setdefault((status.st_dev, status.st_ino), join(path, name))
        if first == join(path, name):
            return False
        head, _, leaf = first.rpartition(b"/")
        at = self._open(self._target, head)
        try:
            os.link(leaf, name, src_dir_fd=at, dst_dir_fd=made, follow_symlinks=False)
        finally:
            os.close(at)
        return True

    def _file(self, found: int, made: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        if self._linked:
            try:
                os.link(name, name, src_dir_fd=found, dst_dir_fd=made, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
        if self._is_linked_here(made, name, path, status):
            return
        source = os.open(name, _OLD_FILE, dir_fd=found)
        try:
            target = os.open(name, _NEW_FILE, 0o600, dir_fd=made)
            try:
                if status.st_size:
                    copy_content(source, target, status)
                _finish(source, target, status, self._own, self._owner)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _special(self, found: int, made: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        """A symlink, a pipe or a device."""
        if self._is_linked_here(made, name, path, status):
            return
        if stat.S_ISLNK(status.st_mode):
            leads_to = os.readlink(name, dir_fd=found)
            if self._links is not None:
                leads_to = self._links.kept(leads_to, path.count(b"/") + 1 if path else 0)
            os.symlink(leads_to, name, dir_fd=made)
        else:
            self.is_plain = self.is_plain and stat.S_ISFIFO(status.st_mode)
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=made)
        if (owner := _owner_of(status, self._owner)) != self._own:
            os.chown(name, *owner, dir_fd=made, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=made, follow_symlinks=False)

    def _finish_directory(self, path: bytes) -> None:
        found = self._open(self._source, path)
        try:
            made = self._open(self._target, path)
            try:
                _finish(found, made, os.fstat(found), self._own, self._owner)
            finally:
                os.close(made)
        finally:
            os.close(found)


def _owner_of(status: os.stat_result, owner: Owner | None) -> tuple[int, int]:
    return owner(status.st_uid, status.st_gid) if owner is not None else (status.st_uid, status.st_gid)


def _finish(
    source: int, target: int, status: os.stat_result, own: tuple[int, int], owner: Owner | None
) -> None:  # fmt: skip
    """All that a file or directory is besides its content. `own` is whom the new one belongs to already."""
    if (wanted := _owner_of(status, owner)) != own:
        os.fchown(target, *wanted)
    for name in _xattrs(source):
        try:
            value = os.getxattr(source, name)
            if owner is not None and name == _CAPABILITY and len(value) == _OF_A_ROOT_BYTES:
                # Not those of the root whose it was, but of whoever is root here (capabilities(7), VFS_CAP_REVISION_2).
                value = value[:3] + b"\x02" + value[4:-4]
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno not in _XATTR_REFUSED:
                raise
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _xattrs(fd: int) -> list[bytes]:
    try:
        return [name for name in map(os.fsencode, os.listxattr(fd)) if is_kept_xattr(name)]
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def copy_content(source: int, made: int, status: os.stat_result) -> None:
    """A file's data, by reference where the file system can (copy_file_range(2) does that); holes stay holes."""
    size = status.st_size
    if size > status.st_blocks * 512:
        _copy_between_holes(source, made, size)
        return
    if size <= _SMALL_BYTES:
        # Two short calls: to find out whether the two can share it takes longer.
        data = os.read(source, size + 1)
        is_grown = len(data) > size
        while data:
            data = data[os.write(made, data) :]
        if not is_grown:
            return
    try:
        left = size
        while left and (count := os.copy_file_range(source, made, left)):
            left -= count
        return
    except OSError as error:
        if error.errno not in _NO_RANGE:
            raise
    while os.sendfile(made, source, None, _CHUNK_BYTES):
        pass


def _copy_between_holes(source: int, made: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        at = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(made, start, os.SEEK_SET)
        left = at - start
        while left and (count := os.sendfile(made, source, None, left)):
            left -= count
    os.ftruncate(made, size)
