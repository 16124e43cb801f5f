"""File trees that may mean harm: walking below a root without ever leaving it, and attaching mounts there.

Everything goes by file descriptor; openat2's RESOLVE_IN_ROOT makes every symlink, also an absolute one
or `..`, resolve below the root.
"""

from __future__ import annotations

import errno
import os
import stat

from nbcontain.linux import syscalls

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def open_in(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as seen with `root_fd` as the root directory."""
    try:
        return syscalls.openat2(root_fd, path, flags, 0, _IN_ROOT)
    except OSError as error:
        error.filename = path
        raise


def make_target(root_fd: int, path: str, made: list[str], *, directory: bool) -> int:
    """The file or directory at `path` below the root, made with its parents if it is not there, as an O_PATH fd.

    Each path that had to be made is added to `made`. Symlinks on the way are followed inside the root.
    """
    try:
        return open_in(root_fd, path)
    except FileNotFoundError:
        pass
    parts = [part for part in path.split("/") if part not in ("", ".")]
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        for number, name in enumerate(parts):
            is_last = number == len(parts) - 1
            prefix = "/" + "/".join(parts[: number + 1])
            try:
                below = open_in(root_fd, prefix)
            except FileNotFoundError:
                below = _make(here, name, directory=directory or not is_last)
                made.append(prefix)
            os.close(here)
            here = below
        result, here = here, -1
        return result
    except OSError as error:
        error.filename = path
        raise
    finally:
        if here >= 0:
            os.close(here)


def _make(parent: int, name: str, *, directory: bool) -> int:
    if name == "..":
        raise OSError(errno.EINVAL, "'..' leads nowhere here", name)
    # A dangling symlink is there already: refused by EEXIST or O_EXCL instead of being written through.
    if directory:
        os.mkdir(name, 0o755, dir_fd=parent)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def attach(mount_fd: int, target_fd: int) -> None:
    """Put a detached mount on the target, and close both."""
    try:
        syscalls.move_mount(mount_fd, target_fd)
    finally:
        os.close(mount_fd)
        os.close(target_fd)


def is_directory(fd: int) -> bool:
    """Whether an fd is a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)
