"""Taking away: what is about to be removed loses its name at once, and is removed without following anything.

No sweep takes it for a dead one's leftover while that goes on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nbcontain.linux.directories import open_directory
from nbcontain.store import files
from nbcontain.values import dataclass

_PAUSES_S = (0.0, 0.001, 0.005, 0.02, 0.05)
_DEEP = 200  # directories that `remove_tree` keeps open at a time


@dataclass(frozen=True)
class Aside:
    """A renamed file or directory, with the descriptor that holds its lock as those of `files.temporary` are held.

    The descriptor is -1 where it cannot be opened, and holds nothing where a directory cannot be locked, as on NFS. A
    sweep may then remove it at the same time, which harms neither.
    """

    path: Path
    fd: int

    def remove(self, remove_tree: Callable[[Path], None]) -> None:
        """Have it removed; what is left then is the next sweep's."""
        try:
            remove_tree(self.path)
        finally:
            if self.fd >= 0:
                os.close(self.fd)


def set_aside(path: Path, tmp: Path) -> Aside:
    """Rename what is at `path` into the directory `tmp`, unsynced. Raises FileNotFoundError if nothing is there.

    What cannot be renamed is gone then.
    """
    fd = -1
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    aside = Aside(tmp / f".tmp-{os.urandom(8).hex()}", fd)
    try:
        try:
            files.move(path, aside.path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _remove_where_it_is(path)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return aside


def _remove_where_it_is(path: Path) -> None:
    """What an overlay cannot rename: a directory of its lower layer, in a store that came in an image of others."""
    # What says that it is whole goes first: a crash in between leaves what nobody takes for that.
    with os.scandir(path) as entries:
        for name in [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]:
            files.unlink(path / name)
    remove_tree(path)


# --- trees ---------------------------------------------------------------------------------------


def remove_tree(path: Path) -> None:
    """Remove a tree without ever following a symlink; idempotent. Raises PermissionError at what others own.

    Works on file descriptors, however deep the tree is: what lies too deep is first moved up. On NFS, what somebody has
    open stays under a name like `.nfs0001` until it is closed, and so does what is above it: for the next sweep.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for pause_s in (*_PAUSES_S, None):
            try:
                remove_at(parent, os.fsencode(path.name))
                break
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or pause_s is None:
                    raise
                # Such a name came while its directory was emptied. Or a first process has just mounted a layer that it
                # had been told of, for a container that could not be started: it is ending.
                time.sleep(pause_s)
    except OSError as error:
        if error.errno != errno.EBUSY or not os.fsencode(error.filename or "").startswith(b".nfs"):
            raise
    finally:
        os.close(parent)


def remove_at(parent: int, name: bytes) -> None:
    """Remove whatever `name` is in the open directory `parent`; idempotent."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _remove_directory(parent, name, [])


def _remove_directory(parent: int, name: bytes, above: list[int]) -> None:
    """Remove `name` in `parent`; `above` are the open directories of this tree, topmost first."""
    try:
        fd = _open_to_remove(parent, name)
    except FileNotFoundError:
        # Somebody else removes the same tree: a sweep, or the twin of this call.
        return
    above.append(fd)
    try:
        while True:
            moved = _empty_directory(fd, above)
            if not moved:
                break
    finally:
        above.pop()
        os.close(fd)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=parent)


def _empty_directory(fd: int, above: list[int]) -> bool:
    """Remove everything in `fd`; True if something from below was moved in here meanwhile (only at the top)."""
    found = False
    with os.scandir(fd) as entries:
        children = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in children:
        found = True
        if not is_directory:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
        elif len(above) < _DEEP:
            _remove_directory(fd, name, above)
        else:
            os.rename(name, f".deep-{os.urandom(8).hex()}".encode(), src_dir_fd=fd, dst_dir_fd=above[0])
    return found and len(above) == 1


def _open_to_remove(parent: int, name: bytes) -> int:
    """A directory we own may forbid us to list or change it; then it is told otherwise."""
    try:
        fd = open_directory(name, parent)
    except PermissionError:
        # Between these two lines nobody else writes here: the tree is ours alone and about to go.
        os.chmod(name, 0o700, dir_fd=parent)
        return open_directory(name, parent)
    status = os.fstat(fd)
    if status.st_mode & 0o300 != 0o300:
        with suppress(PermissionError):
            os.fchmod(fd, 0o700)
    return fd
