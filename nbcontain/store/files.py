"""The only durable writes: a file appears whole, and synced unless it is told to be later, or not at all.

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
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType

from nbcontain.errors import DiskFailed, DiskFull, DiskReadOnly, StoreError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILING = frozenset({errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ESTALE})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_TRIES = 1000
"""How often a new directory may be swept away under our hands before it is made: more than that, and there is none."""
_FREELY = nullcontext()


class disk:  # noqa: N801 - it is called like a function
    """Turn the kernel's "no space" and "quota exceeded" inside into DiskFull, and a disk's failing into DiskFailed.

    `path` is a directory, or what is in one with `is_inside`. No generator: a start enters some twenty of them.
    """

    __slots__ = ("_is_inside", "_path")

    def __init__(self, path: Path | str, *, is_inside: bool = False) -> None:
        self._path, self._is_inside = path, is_inside

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):
            return
        path = os.path.dirname(self._path) if self._is_inside else self._path
        if error.errno in FULL:
            raise DiskFull(f"no room left in {path}", why=error.strerror or "") from error
        if error.errno in _FAILING:
            kind = DiskReadOnly if error.errno == errno.EROFS else DiskFailed
            raise kind(f"the disk under {path} fails", why=error.strerror or "") from error


def replace(
    path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True, under: AbstractContextManager[object] = _FREELY
) -> None:
    """Make `path` hold these bytes: readers see the old ones or the new ones, also after a power cut.

    Without `durable`, a power cut may leave neither: for what can be recognised as damaged and made again. `under` is
    entered for no longer than the new ones take to be seen, and may refuse them.
    """
    with disk(path, is_inside=True), temporary(path.parent, mode) as (temp, fd):
        write(fd, data)
        if durable:
            sync_file(fd)
        with under:
            _rename(temp, path)
        if durable:
            sync_directory(path.parent)


def write_new(path: Path | str, data: bytes, mode: int = 0o600, *, durable: bool = False) -> None:
    """Make a file that must not exist yet. Unless `durable`, its bytes are not synced; its name never is."""
    with disk(path, is_inside=True):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _set_mode(fd, mode)
            write(fd, data)
            if durable:
                sync_file(fd)
        finally:
            os.close(fd)


def _set_mode(fd: int, mode: int) -> None:
    """Exactly this mode: the process's umask may take away what the owner needs."""
    if os.fstat(fd).st_mode & 0o777 != mode:
        os.fchmod(fd, mode)


@contextmanager
def temporary(directory: Path, mode: int = 0o600) -> Iterator[tuple[Path, int]]:
    """A new file in `directory`, locked by this process; unlinked at the end unless it was renamed away.

    Whoever can lock a temporary file knows that its maker is dead (see `sweep`).
    """
    fd, temp = -1, directory
    while fd < 0:
        temp = directory / f".tmp-{os.urandom(8).hex()}"
        fd = open_new(temp)
        _flock(fd, fcntl.LOCK_EX, temp)
        if os.fstat(fd).st_nlink == 0:
            # A sweeper took it for rubbish between its creation and our lock.
            os.close(fd)
            fd = -1
    try:
        _set_mode(fd, mode)
        yield temp, fd
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temp)
        os.close(fd)


@contextmanager
def temporary_directory(directory: Path) -> Iterator[Path]:
    """A new directory, locked by this process. What is left of it at the end is the caller's to remove."""
    for left in reversed(range(_TRIES)):
        temp = directory / f".tmp-{os.urandom(8).hex()}"
        try:
            make_new_directory(temp)
            fd = os.open(temp, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            # A sweeper took it for rubbish before it could be locked; or there is no such place, as all of /proc is.
            if not left or not directory.is_dir():
                raise
            continue
        _flock(fd, fcntl.LOCK_EX, temp)
        if os.fstat(fd).st_nlink:
            break
        os.close(fd)
    else:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory))
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
            _flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, directory / name)
            yield directory / name
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def publish(temp: Path, target: Path, *, durable: bool = True) -> bool:
    """Give a finished, synced file or directory its name for good; unless `durable`, the caller syncs both directories.

    False if a twin has it already; the temporary one is then still where it was. Only for what is
    named after its content, where twins are alike.
    """
    try:
        _rename(temp, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    for directory in dict.fromkeys((target.parent, temp.parent)) if durable else ():
        sync_directory(directory)
    return True


def move(source: Path, target: Path) -> None:
    """Rename, unsynced: for taking away what is about to be removed."""
    _rename(source, target)


def link(source: Path, target: Path) -> None:
    """A further name of a file, unsynced; what has that name already keeps it."""
    with disk(target, is_inside=True), suppress(FileExistsError):
        os.link(source, target)


def make_directory(path: Path, mode: int = 0o700, *, durable: bool = True) -> None:
    """Make `path` and what is missing above it, synced if it is `durable`; idempotent."""
    try:
        make_new_directory(path, mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    except FileNotFoundError:
        make_directory(path.parent, mode, durable=durable)
        with suppress(FileExistsError):
            make_new_directory(path, mode)
    if durable:
        # Also if a twin made it a moment ago, and has not come to this line yet.
        sync_directory(path.parent)


def make_new_directory(path: Path | str, mode: int = 0o700) -> None:
    """Make a directory that must not exist yet, with exactly this mode, unsynced."""
    with disk(path, is_inside=True):
        os.mkdir(path, 0o700)
    if mode != 0o700 or os.lstat(path).st_mode & 0o777 != mode:
        # The process's umask may take away what the owner needs.
        os.chmod(path, mode)


def set_mode(path: Path, mode: int) -> None:
    """Set the mode of what is there; a symlink is not followed."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def touch(path: Path) -> None:
    """Make a file young again."""
    os.utime(path)


def unlink(path: Path) -> bool:
    """Remove a file; False if it was not there."""
    with disk(path, is_inside=True), suppress(FileNotFoundError):
        os.unlink(path)
        return True
    return False


@contextmanager
def lock(path: Path, *, exclusive: bool) -> Iterator[int]:
    """Hold flock(2) on `path`, which is made if need be and never removed. Waits. Gives the descriptor that holds it.

    Threads exclude each other like processes: each call has its own open file description.
    """
    fd = _open_lock(path)
    try:
        _flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, path)
        yield fd
    finally:
        os.close(fd)


def try_lock(path: Path, *, exclusive: bool = True) -> int | None:
    """An fd holding `path` until it is closed, or None if somebody else holds it so that this cannot be."""
    fd = _open_lock(path)
    try:
        _flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB, path)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return fd


def _open_lock(path: Path) -> int:
    with disk(path, is_inside=True):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _flock(fd: int, operation: int, path: Path) -> None:
    """flock(2); raises StoreError where the file system has no locks, BlockingIOError if one is held."""
    try:
        fcntl.flock(fd, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise StoreError(
            f"{path.parent} is on a file system without locks",
            why=f"flock says: {error.strerror}",
            hint="Set NBCONTAIN_ROOT to a directory on a local disk.",
        ) from error


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes in the same file, for whoever has it mounted: a reader may see the middle of it."""
    with disk(path, is_inside=True):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "wb", 0) as file:
            write(fd, data)
            file.truncate(len(data))


def read(path: Path | str, limit: int) -> bytes:
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


def known_by(path: str) -> tuple[int, ...]:
    """What a file that somebody may replace is known again by; nothing where there is none. When it changed comes last.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def names(directory: Path) -> list[str]:
    """What a directory of the store holds, sorted, without temporary things; nothing if it is missing."""
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return []


# --- what the kernel is asked, one function each: the place where tests stop the world ------------


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    with disk(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file(fd)
        finally:
            os.close(fd)


def sync_filesystem(path: Path) -> None:
    """Write out everything of the file system that `path` is in (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_filesystem_of(fd, path)
    finally:
        os.close(fd)


def sync_filesystem_of(fd: int, path: Path) -> None:
    """The same for an open file, whose `path` is for the error: that is whatever failed since it was opened."""
    from nbcontain.linux import syscalls

    with disk(path):
        syscalls.syncfs(fd)


def write(fd: int, data: bytes | bytearray | memoryview) -> None:
    """All of `data`, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def open_new(path: Path) -> int:
    """An fd to write and read a file that must not exist yet. Not synced: whoever has it does that."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def open_to_append(path: Path, mode: int = 0o600) -> int:
    """An fd that adds to a file, which is made if it is missing, and can read it. Not synced: it becomes whole with its
    directory."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def open_as_it_is(path: Path | str) -> int:
    """What is no file, a device or a pipe, to be written to. Waits for a pipe's reader. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOCTTY | os.O_CLOEXEC)


def begin_writing_out(fd: int, offset: int, size_bytes: int) -> None:
    """Have the disk begin with what was written there, or all that follows with 0 bytes: `sync_file` waits for less."""
    from nbcontain.linux import syscalls

    syscalls.begin_writing_out(fd, offset, size_bytes)


def sync_file(fd: int) -> None:
    """Make the bytes of a file survive a power cut; of a directory, the names in it."""
    os.fsync(fd)


def _rename(source: Path, target: Path) -> None:
    with disk(target, is_inside=True):
        os.rename(source, target)
