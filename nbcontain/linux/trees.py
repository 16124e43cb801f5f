"""File trees that may mean harm: walking below a root without ever leaving it, and attaching mounts there.

Everything goes by file descriptor; openat2's RESOLVE_IN_ROOT makes every symlink, also an absolute one
or `..`, resolve below the root. A kernel that has no openat2(2), as gVisor had none before September 2026, is asked
for one name after the other: what was opened stays what it is, whoever renames or replaces names meanwhile, and `..`
leads back to the directory that one came from.
"""

from __future__ import annotations

import errno
import os
import stat

from nbcontain.linux import syscalls
from nbcontain.linux.directories import open_directory

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_MAX_LINKS = 40
"""As many as the kernel follows itself (path_resolution(7))."""


def open_in(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as seen with `root_fd` as the root directory."""
    try:
        try:
            return syscalls.openat2(root_fd, path, flags, 0, _IN_ROOT)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        return _walked_in(root_fd, path, flags)
    except OSError as error:
        error.filename = path
        raise


def _walked_in(root_fd: int, path: str, flags: int) -> int:
    """The same by steps. Links of the kernel's in /proc lead where their text says, below this root."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    way, leaf, links = [os.dup(root_fd)], ".", 0
    todo = _parts(path)
    try:
        while todo:
            name = todo.pop()
            if name in (".", ".."):
                if not is_directory(way[-1]):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                leaf = "."
                if name == ".." and len(way) > 1:
                    os.close(way.pop())
                continue
            step = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=way[-1])
            way.append(step)
            leaf = name
            if not stat.S_ISLNK(os.fstat(step).st_mode):
                continue
            if not todo and flags & os.O_NOFOLLOW:
                break
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            link = os.readlink("", dir_fd=step)
            keep = 1 if link.startswith("/") else -1
            for fd in way[keep:]:
                os.close(fd)
            del way[keep:]
            leaf = "."
            todo += _parts(link)
        return _reopened(way[-2] if leaf != "." else way[-1], leaf, way[-1], flags)
    finally:
        for fd in way:
            os.close(fd)


def _parts(path: str) -> list[str]:
    """The last one first; what ends with a slash is asked to be a directory by a last "."."""
    return [each or "." for each in reversed(path.split("/"))]


def _reopened(above: int, name: str, place: int, flags: int) -> int:
    """What `place` is, opened otherwise; of anything but a directory, what has its name by now, if that is no link."""
    if flags & os.O_PATH and not flags & os.O_DIRECTORY:
        return os.dup(place)
    if flags & os.O_DIRECTORY:
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=place)
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)


def open_beneath(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open what lies below `root_fd`, by a path without a symlink in it. Without openat2(2), without `..` either."""
    try:
        return syscalls.openat2(root_fd, path or ".", flags, 0, _BENEATH)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    *parents, name = [each for each in path.split("/") if each not in ("", ".")] or ["."]
    if path.startswith("/") or ".." in (*parents, name):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    fd = os.dup(root_fd)
    try:
        for each in parents:
            fd, above = _step(fd, each, os.O_PATH, path), fd
            os.close(above)
        return _step(fd, name, flags, path, is_last=True)
    finally:
        os.close(fd)


def _step(fd: int, name: str, flags: int, path: str, *, is_last: bool = False) -> int:
    """Whatever stands there, but no symlink; the last one may be one itself, for O_PATH with O_NOFOLLOW."""
    step = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    is_link = stat.S_ISLNK(os.fstat(step).st_mode)
    if is_link and not (is_last and flags & os.O_PATH and flags & os.O_NOFOLLOW):
        os.close(step)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    try:
        return _reopened(fd, name, step, flags)
    finally:
        os.close(step)


def make_target(root_fd: int, path: str, made: list[str], *, directory: bool) -> int:
    """The file or directory at `path` below the root, made with its parents if it is not there, as an O_PATH fd.

    Each path that had to be made is added to `made`. Symlinks on the way are followed inside the root, also where
    they lead to nothing yet (/etc/resolv.conf of many images).
    """
    try:
        return open_in(root_fd, path)
    except FileNotFoundError:
        pass
    resolved, waiting, links = "", path.split("/"), 0
    while waiting:
        name = waiting.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            resolved = resolved.rpartition("/")[0]
            continue
        try:
            link = _link_at(root_fd, f"{resolved}/{name}")
        except FileNotFoundError:
            _make(root_fd, resolved, name, directory=directory or any(waiting))
            made.append(f"{resolved}/{name}")
            link = None
        if link is None:
            resolved = f"{resolved}/{name}"
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if link.startswith("/"):
            resolved = ""
        waiting[:0] = link.split("/")
    return open_in(root_fd, resolved or "/", os.O_PATH | os.O_NOFOLLOW)


def _link_at(root_fd: int, path: str) -> str | None:
    """Where a symlink leads; None if `path` is something else. Raises FileNotFoundError."""
    fd = open_in(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _make(root_fd: int, parent: str, name: str, *, directory: bool) -> None:
    parent_fd = open_in(root_fd, parent or "/", os.O_PATH | os.O_DIRECTORY)
    try:
        if directory:
            # Not chmod(2) afterwards: in a volume, another container may have put a symlink in its place by then.
            before = os.umask(0)
            try:
                os.mkdir(name, 0o755, dir_fd=parent_fd)
            finally:
                os.umask(before)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent_fd))
    except OSError as error:
        error.filename = f"{parent}/{name}"
        raise
    finally:
        os.close(parent_fd)


def attach(mount_fd: int, target_fd: int) -> None:
    """Put a detached mount on the target, and close both."""
    try:
        syscalls.move_mount(mount_fd, target_fd)
    finally:
        os.close(mount_fd)
        os.close(target_fd)


def copy_into(source_fd: int, target_fd: int) -> None:
    """Copy what a directory holds, and its own mode and owner, into an empty one; both may be O_PATH descriptors.

    Of mounts below it only what they cover; device nodes and sockets are left out.
    """
    source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source_fd)
    target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target_fd)
    try:
        _copy(source, target)
    finally:
        os.close(source)
        os.close(target)


def _copy(source: int, target: int) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            continue
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            copy_each, old, new = _copy, open_directory(name, source), open_directory(name, target)
        elif stat.S_ISREG(status.st_mode):
            old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            copy_each = _copy_bytes
        else:
            continue
        try:
            copy_each(old, new)
        finally:
            os.close(old)
            os.close(new)
    status = os.fstat(source)
    _be_like(target, status)


def _copy_bytes(source: int, target: int) -> None:
    while os.sendfile(target, source, None, 1 << 30):
        pass
    _be_like(target, os.fstat(source))


def _be_like(fd: int, status: os.stat_result) -> None:
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def is_directory(fd: int) -> bool:
    """Whether an fd is a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)
