"""Answers to open(2), for what a mounted /proc and /dev would give: descriptors handed over. Run by the answerer."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping

from nbcontain.linux import notify
from nbcontain.linux.notify import Call
from nbcontain.runtime import devices
from nbcontain.runtime.asked import MASK, Asked
from nbcontain.runtime.kept_ids import People
from nbcontain.runtime.served import Served, served
from nbcontain.store import files

_LIMIT_BYTES = 16 << 20
_OPENED = os.O_ACCMODE | os.O_NONBLOCK | os.O_APPEND
_DEVICE_NUMBERS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_MOUNTED = {
    "mounts": b"rootfs / rootfs rw 0 0\n",
    "mountinfo": b"1 1 0:1 / / rw - rootfs rootfs rw\n",
    "mountstats": b"device rootfs mounted on / with fstype rootfs\n",
}
"""In a chroot there is one file system, whatever it stands on outside."""


class OpenAnswers:
    """Each method answers the call that it is called after. Everything is opened read-only, but the devices."""

    def __init__(
        self, asked: Asked, people: People, outside: Mapping[str, int], opened: Mapping[str, int], *, is_root: bool
    ) -> None:
        """`outside` are the host's directories, `opened` files of ours by their paths inside.

        `is_root`: the container's root is the host's, and could change what is the host's by its descriptor.
        """
        self._asked, self._people, self._outside, self._is_root = asked, people, outside, is_root
        self._opened = {path.encode(): fd for path, fd in opened.items()}
        self._own_devices = _usable_devices()
        others = _DEVICE_NUMBERS.keys() - self._own_devices if is_root else ()
        self._made = {name: fd for name in others if (fd := devices.nobodys_node(name, outside["dev"])) >= 0}
        self.lends_devices = is_root and len(self._own_devices) + len(self._made) < len(_DEVICE_NUMBERS)
        """Some devices that are handed in are the host's own."""

    def open(self, call: Call) -> None:
        self._serve(call, call.arguments[0], call.arguments[1])

    def openat(self, call: Call) -> None:
        self._serve(call, call.arguments[1], call.arguments[2])

    def _serve(self, call: Call, address: int, flags: int) -> None:
        try:
            self._people.meet(call.pid)
            path = self._asked.path(call, address)
        except OSError:
            path = b""
        if not path.startswith((b"/proc/", b"/dev/", b"/sys/", b"/etc/", b"//")) or flags & os.O_PATH:
            self._asked.let_through(call)
            return
        fd = self._found(call, path, flags & MASK)
        if fd < 0:
            self._asked.let_through(call)
            return
        try:
            self._asked.check(call)
            notify.give(self._asked.listener, call, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def _found(self, call: Call, path: bytes, flags: int) -> int:
        """A descriptor of what is served at this path; -1 where the kernel is to look itself. Raises OSError."""
        reads = flags & os.O_ACCMODE == os.O_RDONLY
        if path in self._opened:
            if not reads:
                return -1
            return _in_memory(os.pread(self._opened[path], _LIMIT_BYTES, 0))
        what = served(path, self._asked.own(call.pid) if path.startswith(b"/proc/") and path[6:7].isdigit() else ())
        if what is None:
            return -1
        if flags & os.O_DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, "")
        if what.kind == "device":
            return self._device(what.name, flags)
        if what.kind == "fd":
            return self._copied(call, what.number, flags)
        if what.kind == "tty":
            return self._terminal(call)
        if not reads:
            raise PermissionError(errno.EACCES, "")
        return self._to_read(call, what)

    def _to_read(self, call: Call, what: Served) -> int:
        if what.kind == "mounts":
            return _in_memory(_MOUNTED[what.name])
        if what.kind == "sys":
            return self._settled(self._opened_outside(self._outside["sys"], what.name))
        if what.kind == "proc":
            fd = self._opened_outside(self._asked.proc, what.name)
            # Nobody can change anything but the contents of the settings below sys (proc(5)).
            return fd if what.name.startswith("sys/") else self._settled(fd)
        name = f"task/{call.pid}/{what.name}" if what.kind == "task" else what.name or "exe"
        # By the links that the list has, and no others: exe leads to a file of the container's.
        flags = os.O_RDONLY | os.O_NONBLOCK | (0 if what.kind == "exe" else os.O_NOFOLLOW)
        fd = _plain(self._asked.open_of(call.pid, name, flags))
        return self._settled(fd) if what.name.startswith("net/") else fd

    def _settled(self, fd: int) -> int:
        """The same; for the host's root a copy of what it says now, since by this one it could change its mode."""
        if not self._is_root:
            return fd
        try:
            data = bytearray()
            while len(data) < _LIMIT_BYTES and (part := os.read(fd, 1 << 16)):
                data += part
        finally:
            os.close(fd)
        return _in_memory(data)

    def _opened_outside(self, directory: int, path: str) -> int:
        """A file, by a path that has no link of any kind in it."""
        return _plain(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory))

    def _device(self, name: str, flags: int) -> int:
        if name in self._own_devices:
            return -1
        wanted = flags & _OPENED | os.O_NOCTTY | os.O_CLOEXEC
        if name in self._made:
            return os.open(f"self/fd/{self._made[name]}", wanted)
        fd = os.open(name, wanted | os.O_NOFOLLOW, dir_fd=self._outside["dev"])
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(*_DEVICE_NUMBERS[name]):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "")
        return fd

    def _copied(self, call: Call, number: int, flags: int) -> int:
        """What the caller has open as `number`: a copy, which can do no more than that one."""
        try:
            fd = self._asked.copy_of(call, number)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise FileNotFoundError(errno.ENOENT, "") from None
            # Refused: then only what gives everybody the same, whoever opens it.
            place = self._asked.of_caller(call, number)
            try:
                if not stat.S_ISFIFO(os.fstat(place).st_mode):
                    raise PermissionError(errno.EACCES, "") from None
                # Not waiting for somebody at the other end: everybody else waits meanwhile.
                fd = os.open(f"self/fd/{place}", flags & _OPENED | os.O_NONBLOCK | os.O_CLOEXEC)
                os.set_blocking(fd, not flags & os.O_NONBLOCK)
                return fd
            finally:
                os.close(place)
        wanted, has = flags & os.O_ACCMODE, fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        if has not in (wanted, os.O_RDWR):
            os.close(fd)
            raise PermissionError(errno.EACCES, "")
        return fd

    def _terminal(self, call: Call) -> int:
        for number in (0, 1, 2):
            place = self._asked.of_caller(call, number)
            try:
                status = os.fstat(place)
                if stat.S_ISCHR(status.st_mode) and 136 <= os.major(status.st_rdev) <= 143:
                    return os.open(f"self/fd/{place}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            finally:
                os.close(place)
        raise OSError(errno.ENXIO, "")


def _usable_devices() -> frozenset[str]:
    """The devices that the container's own /dev has, and can open."""
    usable = set()
    for name, numbers in _DEVICE_NUMBERS.items():
        try:
            fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            continue
        status = os.fstat(fd)
        os.close(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(*numbers):
            usable.add(name)
    return frozenset(usable)


def _in_memory(data: bytes | bytearray) -> int:
    """A copy that is the caller's own: by a descriptor of ours it could change our file's mode, or keep it locked."""
    memory = os.memfd_create("served", os.MFD_CLOEXEC)
    try:
        files.write(memory, data)
        return os.open(f"self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)


def _plain(fd: int) -> int:
    """`fd`, which waits like any other from here on; raises FileNotFoundError for what is no regular file."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "")
    os.set_blocking(fd, True)
    return fd
