"""Opening a directory by its name in another one, and never through a symlink, whatever the kernel."""

from __future__ import annotations

import errno
import os


def follows(link: str) -> bool:
    """Whether a symlink to a directory is followed by who forbids that, as in gVisor of 2022: then one of a layer's
    could lead out of what that is unpacked into. True, too, where this cannot be tried."""
    try:
        os.close(os.open(link, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in (errno.ENOTDIR, errno.ELOOP)
    return True


_FOLLOWS = follows("/proc/self")  # asked while there is a /proc: who opens directories may be in a root without


def open_directory(name: str | bytes, above_fd: int, flags: int = os.O_RDONLY) -> int:
    """Open a directory that has this name in another one, and is no symlink. Raises NotADirectoryError."""
    flags |= os.O_DIRECTORY | os.O_CLOEXEC
    if not _FOLLOWS or flags & os.O_PATH:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=above_fd)
    # With O_PATH no kernel does, and from then on it is this directory, whatever the name comes to be.
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above_fd)
    try:
        return os.open(".", flags, dir_fd=place)
    finally:
        os.close(place)
