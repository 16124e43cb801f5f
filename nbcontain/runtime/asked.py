"""Who asks: a process whose call waits for an answer, what its memory and its /proc say. Run by the answerer.

Its number is its own only as long as the call waits: `check` comes after whatever was found by it.
"""

from __future__ import annotations

import errno
import os

from nbcontain.linux import notify, syscalls
from nbcontain.linux.notify import Call

CWD = 0xFFFF_FF9C
"""AT_FDCWD."""
MASK = 0xFFFF_FFFF
_PIDFD_THREAD = os.O_EXCL
_STRAIGHT = syscalls.RESOLVE_NO_MAGICLINKS


class Asked:
    """What all answers are made with: the listener, and the host's /proc as an O_PATH descriptor."""

    def __init__(self, listener: int, proc: int) -> None:
        self.listener, self.proc = listener, proc

    def let_through(self, call: Call) -> None:
        """Have the kernel do it."""
        notify.let_through(self.listener, call)

    def fail(self, call: Call, number: int) -> None:
        notify.answer(self.listener, call, error=number)

    def give(self, call: Call, value: int = 0) -> None:
        notify.answer(self.listener, call, value)

    def check(self, call: Call) -> None:
        """Whoever asked is still there, so that what was found by the number was theirs."""
        if not notify.is_waiting(self.listener, call):
            raise ProcessLookupError(errno.ESRCH, "")

    def read(self, call: Call, address: int, size_bytes: int) -> bytes:
        memory = self.open_of(call.pid, "mem", os.O_RDONLY)
        try:
            data = notify.read(memory, address, size_bytes)
        finally:
            os.close(memory)
        self.check(call)
        return data

    def write(self, call: Call, address: int, data: bytes) -> None:
        memory = self.open_of(call.pid, "mem", os.O_RDWR)
        try:
            self.check(call)
            notify.write(memory, address, data)
        finally:
            os.close(memory)

    def open_of(self, pid: int, name: str, flags: int) -> int:
        """A file of a process's directory in /proc. Raises OSError."""
        path, flags = f"{pid}/{name}", flags | os.O_CLOEXEC
        try:
            return os.open(path, flags, dir_fd=self.proc)
        except PermissionError:
            # The host's root without CAP_SYS_PTRACE may look into those of its own number only. Then be of theirs.
            uid, gid = (int(each.split()[0]) for each in self.statuses(pid, b"Uid", b"Gid"))
            own_gid, own_uid = syscalls.setfsgid(gid), syscalls.setfsuid(uid)
            try:
                return os.open(path, flags, dir_fd=self.proc)
            finally:
                syscalls.setfsuid(own_uid)
                syscalls.setfsgid(own_gid)

    def path(self, call: Call, address: int) -> bytes:
        memory = self.open_of(call.pid, "mem", os.O_RDONLY)
        try:
            path = notify.text(memory, address)
        finally:
            os.close(memory)
        self.check(call)
        return path

    def place(self, call: Call, directory: int, path: bytes, *, follow: bool) -> int:
        """What a path of the caller's leads to, as an O_PATH descriptor. Raises OSError, as the kernel would."""
        if not path:
            raise FileNotFoundError(errno.ENOENT, "")
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        if path.startswith(b"/"):
            base, resolve = self.link(call, "root"), _STRAIGHT | syscalls.RESOLVE_IN_ROOT
        else:
            base = self.link(call, "cwd") if directory == CWD else self.of_caller(call, directory)
            resolve = _STRAIGHT
        try:
            return syscalls.openat2(base, os.fsdecode(path), flags, 0, resolve)
        finally:
            os.close(base)

    def link(self, call: Call, name: str) -> int:
        fd = self.open_of(call.pid, name, os.O_PATH | os.O_DIRECTORY)
        self.check(call)
        return fd

    def of_caller(self, call: Call, number: int) -> int:
        """What the caller has open as `number`, as an O_PATH descriptor. Raises OSError (EBADF)."""
        try:
            fd = self.open_of(call.pid, f"fd/{number}", os.O_PATH)
        except FileNotFoundError:
            raise OSError(errno.EBADF, "") from None
        self.check(call)
        return fd

    def copy_of(self, call: Call, number: int) -> int:
        """What the caller has open as `number`, as it has it. Raises OSError."""
        process = self.pidfd(call.pid)
        try:
            fd = syscalls.pidfd_getfd(process, number)
        finally:
            os.close(process)
        try:
            self.check(call)
        except OSError:
            os.close(fd)
            raise
        return fd

    def path_of(self, place: int) -> bytes:
        return os.readlink(f"self/fd/{place}".encode())

    def mount_of(self, place: int) -> bytes:
        """Which mount it is in (proc(5), fdinfo)."""
        fd = os.open(f"self/fdinfo/{place}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        try:
            return os.read(fd, 512).partition(b"mnt_id:\t")[2].partition(b"\n")[0]
        finally:
            os.close(fd)

    def status(self, pid: int, name: bytes) -> bytes:
        return self.statuses(pid, name)[0]

    def statuses(self, pid: int, *names: bytes) -> list[bytes]:
        """Lines of its status, as they are at one time."""
        fd = os.open(f"{pid}/status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
        return [text.partition(b"\n" + name + b":\t")[2].partition(b"\n")[0] for name in names]

    def program(self, pid: int) -> bytes:
        """What it executes, by a name that is another's for another program."""
        return os.readlink(f"{pid}/exe".encode(), dir_fd=self.proc)

    def umask(self, pid: int) -> int:
        return int(self.status(pid, b"Umask") or b"22", 8)

    def pidfd(self, pid: int) -> int:
        """A pidfd over which this thread's descriptors are had (pidfd_getfd(2)). Raises OSError."""
        try:
            return os.pidfd_open(pid, _PIDFD_THREAD)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        # Linux < 6.9 knows processes only: mostly all of its threads have the same, and the first has not ended.
        return os.pidfd_open(int(self.status(pid, b"Tgid")))

    def own(self, pid: int) -> tuple[int, ...]:
        """The numbers of the caller's process and thread, as it counts."""
        return tuple(int(self.status(pid, name).split()[-1]) for name in (b"NStgid", b"NSpid"))


def numbers(call: Call, count: int, start: int = 0) -> tuple[int, ...]:
    """So many arguments as 32-bit numbers, from the one on that `start` counts."""
    return tuple(number & MASK for number in call.arguments[start : start + count])
