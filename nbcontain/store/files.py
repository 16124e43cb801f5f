"""The only durable writes: a file appears whole and synced, or not at all.

Nobody else renames or syncs. Every change of the disk goes through one of the small functions at
the end, so a test can stop, fail or record the world at each of them. A full disk becomes `DiskFull`
here and nowhere else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nbcontain.errors import DiskFull, StoreError
from nbcontain.linux import syscalls

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DEEP = 200
"""How many directories `remove_tree` keeps open at a time."""


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn the kernel's "no space" and "quota exceeded" inside into DiskFull, naming the store's place."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"no room left in {path}", why=error.strerror or "") from error
        raise


def replace(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Make `path` hold these bytes: readers see the old ones or the new ones, also after a power cut.

    Without `durable`, a power cut may leave neither: for what can be recognised as damaged and made again.
    """
    with disk(path.parent), temporary(path.parent, mode) as (temp, fd):
        write(fd, data)
        if durable:
            _fsync(fd)
        _rename(temp, path)
        if durable:
            sync_directory(path.parent)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Make a file that must not exist yet, unsynced: for what is worthless after a power cut."""
    with disk(path.parent):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            write(fd, data)
        finally:
            os.close(fd)


@contextmanager
def temporary(directory: Path, mode: int = 0o600) -> Iterator[tuple[Path, int]]:
    """A new file in `directory`, locked by this process; unlinked at the end unless it was renamed away.

    Whoever can lock a temporary file knows that its maker is dead (see `sweep`).
    """
    fd, temp = -1, directory
    while fd < 0:
        temp = directory / f".tmp-{os.urandom(8).hex()}"
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink == 0:
            # A sweeper took it for rubbish between its creation and our lock.
            os.close(fd)
            fd = -1
    try:
        yield temp, fd
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temp)
        os.close(fd)


@contextmanager
def temporary_directory(directory: Path) -> Iterator[Path]:
    """A new directory, locked by this process. What is left of it at the end is the caller's to remove."""
    while True:
        temp = directory / f".tmp-{os.urandom(8).hex()}"
        with disk(directory):
            os.mkdir(temp, 0o700)
        fd = os.open(temp, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            break
        os.close(fd)
    try:
        yield temp
    finally:
        os.close(fd)


def sweep(directory: Path) -> Iterator[Path]:
    """Each temporary thing in `directory` whose maker is dead, held locked until the next is asked for."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        if not name.startswith(".tmp-"):
            continue
        try:
            fd = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield directory / name
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def publish(temp: Path, target: Path) -> bool:
    """Give a finished, synced file or directory its name for good.

    False if a twin has it already; the temporary one is then still where it was. Only for what is
    named after its content, where twins are alike.
    """
    try:
        _rename(temp, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    sync_directory(target.parent)
    if temp.parent != target.parent:
        sync_directory(temp.parent)
    return True


def move(source: Path, target: Path) -> None:
    """Rename, unsynced: for taking away what is about to be removed."""
    _rename(source, target)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make `path` and what is missing above it; idempotent."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    except FileNotFoundError:
        make_directory(path.parent, mode)
        with suppress(FileExistsError):
            os.mkdir(path, mode)
    sync_directory(path.parent)


def unlink(path: Path) -> bool:
    """Remove a file; False if it was not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def lock(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold flock(2) on `path`, which is made if need be and never removed. Waits.

    Threads exclude each other like processes: each call has its own open file description.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def try_lock(path: Path) -> int | None:
    """An fd holding `path` exclusively until it is closed, or None if somebody else holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def read(path: Path, limit: int) -> bytes:
    """A regular file of at most `limit` bytes; raises StoreError for anything else, OSError if it cannot be read."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise StoreError(f"{path} is no file of at most {limit} bytes", why="the store was altered by hand")
        data = bytearray()
        # Python makes room for all that is asked for; so one byte more than there should be, not a megabyte.
        while len(data) <= limit and (chunk := os.read(fd, min(1 << 20, limit + 1, status.st_size + 1))):
            data += chunk
        if len(data) > limit:
            raise StoreError(f"{path} grew beyond {limit} bytes while it was read")
        return bytes(data)
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a tree without ever following a symlink; idempotent. Raises PermissionError at what others own.

    Works on file descriptors, however deep the tree is: what lies too deep is first moved up.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_at(parent, os.fsencode(path.name))
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
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        # Between these two lines nobody else writes here: the tree is ours alone and about to go.
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)
    status = os.fstat(fd)
    if status.st_mode & 0o300 != 0o300:
        with suppress(PermissionError):
            os.fchmod(fd, 0o700)
    return fd


# --- what the kernel is asked, one function each: the place where tests stop the world ------------


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: Path) -> None:
    """Write out everything of the file system that `path` is in (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


def write(fd: int, data: bytes | memoryview) -> None:
    """All of `data`, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_file(fd: int) -> None:
    """Make the bytes of a file survive a power cut."""
    _fsync(fd)


def _fsync(fd: int) -> None:
    os.fsync(fd)


def _rename(source: Path, target: Path) -> None:
    os.rename(source, target)
