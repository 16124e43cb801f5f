"""A program's terminal: a pty of the container's own devpts (pty(7), runtime-spec config.md#process `terminal`).

Made by init and by an exec's process, inside; the other end goes to the supervisor, or to who asked for the exec.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from nbcontain.errors import SetupFailed
from nbcontain.linux import syscalls, trees
from nbcontain.values import dataclass

_UNLOCK, _OPEN_PEER, _SET_SIZE, _BECOME_CONTROLLING = 0x40045431, 0x5441, 0x5414, 0x540E
_MULTIPLEXER = os.makedev(5, 2)


@dataclass(frozen=True, slots=True)
class Console:
    """Both ends of a terminal. Who reads `master` keeps `peer`, without which reading fails between two users."""

    master: int
    peer: int

    def close(self) -> None:
        os.close(self.master)
        os.close(self.peer)


def furnished(root_fd: int, size: tuple[int, int]) -> Console:
    """Init, before the pivot: a terminal for the container whose root this is, which is its /dev/console too."""
    directory = trees.open_in(root_fd, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    try:
        console = opened("/dev/pts/ptmx", size, trees.open_in(root_fd, "/dev/pts/ptmx", os.O_PATH | os.O_NOFOLLOW))
        # As runc and crun do: a bind, so that it is this very terminal whatever becomes of /dev/pts.
        os.close(os.open("console", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory))
        place = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        trees.attach(syscalls.open_tree(console.peer), place)
    finally:
        os.close(directory)
    return console


def inside(size: tuple[int, int]) -> Console:
    """An exec's process, with no more power than its program will have: one more terminal of its container's."""
    path = "/dev/pts/ptmx"
    try:
        return opened(path, size, os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        raise SetupFailed(
            "cannot make a terminal in the container", errno=error.errno, path=path, why=error.strerror or ""
        ) from error


def opened(path: str, size: tuple[int, int], place: int) -> Console:
    """A new terminal of the devpts whose multiplexer is at `place`, an O_PATH descriptor, which is closed.

    The other end is opened by the first one and not by its path, which could lead elsewhere by now.
    """
    try:
        status = os.fstat(place)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _MULTIPLEXER:
            raise SetupFailed(f"{path} is not what makes terminals", errno=errno.ENOTTY, path=path)
        master = os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        fcntl.ioctl(master, _UNLOCK, struct.pack("i", 0))
        peer = fcntl.ioctl(master, _OPEN_PEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    console = Console(master, peer)
    # A multiplexer that somebody made elsewhere gives terminals of another devpts.
    if os.fstat(peer).st_dev != status.st_dev:
        console.close()
        raise SetupFailed(f"{path} makes terminals of elsewhere", errno=errno.ENOTTY, path=path)
    resize(master, size)
    return console


def resize(master: int, size: tuple[int, int]) -> None:
    """Any process: say how many rows and columns there are; (0, 0) is unknown. Whoever runs in it gets SIGWINCH."""
    rows, columns = (min(max(number, 0), 0xFFFF) for number in size)
    if rows and columns:
        fcntl.ioctl(master, _SET_SIZE, struct.pack("HHHH", rows, columns, 0, 0))


def take() -> None:
    """The program's process: let the terminal that is standard input be the one that ctrl-C is typed at.

    It leads a session that has none yet.
    """
    fcntl.ioctl(0, _BECOME_CONTROLLING, 0)
