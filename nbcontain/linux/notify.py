"""Answering calls of other processes for the kernel (seccomp_unotify(2)): the interface, and the memory of who called.

What is read of a caller's memory may be another's by then: `is_waiting` says whether the call still stands, and is to
be asked after everything that was found out by the caller's pid.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct

from nbcontain.values import dataclass

_RECEIVE, _SEND, _IS_VALID, _ADD_FD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
_CALL = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_ADDED = struct.Struct("=QIIII")
_CONTINUE = 1
_ADD_AND_SEND = 2
_AT_NUMBER = 1
_SYNC_WAKE_UP = 1
_PAGE = 4096


@dataclass(slots=True)
class Call:
    """One call that waits for its answer."""

    id: int
    pid: int
    """The thread's, as the reader counts."""
    number: int
    machine: int
    """AUDIT_ARCH_…: which table `number` belongs to."""
    arguments: tuple[int, ...]


def receive(listener: int) -> Call | None:
    """The next call; waits for one. None where whoever called has ended meanwhile."""
    buffer = bytearray(_CALL.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    found, pid, _, number, machine, _, *arguments = _CALL.unpack(buffer)
    return Call(found, pid, number, machine, tuple(arguments))


def is_waiting(listener: int, call: Call) -> bool:
    """Whether the call still waits: then its pid still is who called."""
    try:
        fcntl.ioctl(listener, _IS_VALID, struct.pack("=Q", call.id))
    except OSError:
        return False
    return True


def answer(listener: int, call: Call, value: int = 0, error: int = 0) -> None:
    """Have the call give `value`, or fail with `error`. Nothing happens if nobody waits any more."""
    _send(listener, _ANSWER.pack(call.id, value, -error, 0))


def let_through(listener: int, call: Call) -> None:
    """Have the kernel do what was asked. Its arguments may be others by then: this is no permission (seccomp(2))."""
    _send(listener, _ANSWER.pack(call.id, 0, 0, _CONTINUE))


def _send(listener: int, data: bytes) -> None:
    try:
        fcntl.ioctl(listener, _SEND, data)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def give(listener: int, call: Call, fd: int, *, close_on_exec: bool) -> None:
    """Have the call give a copy of our `fd` in the caller. Linux 5.14."""
    flags = os.O_CLOEXEC if close_on_exec else 0
    try:
        fcntl.ioctl(listener, _ADD_FD, _ADDED.pack(call.id, _ADD_AND_SEND, fd, 0, flags))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            answer(listener, call, error=error.errno)
        elif error.errno != errno.ENOENT:
            raise


def put(listener: int, call: Call, fd: int, at: int, *, close_on_exec: bool) -> bool:
    """Put a copy of our `fd` in the place of the caller's descriptor `at`. The call still waits. Linux 5.9."""
    flags = os.O_CLOEXEC if close_on_exec else 0
    try:
        fcntl.ioctl(listener, _ADD_FD, _ADDED.pack(call.id, _AT_NUMBER, fd, at, flags))
    except OSError:
        return False
    return True


def hurry(listener: int) -> None:
    """Have the kernel wake both sides up on one processor, which halves the time of an answer. Linux 6.6."""
    try:
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)
    except OSError:
        # An older kernel: it takes a little longer.
        return


def memory(proc: int, pid: int, *, writable: bool = False) -> int:
    """A descriptor of a process's memory, by the directory `proc`; raises OSError."""
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
    return os.open(f"{pid}/mem", flags, dir_fd=proc)


def text(fd: int, address: int, limit: int = _PAGE) -> bytes:
    """The zero-terminated string there. Raises OSError: EFAULT, or ENAMETOOLONG where it does not end."""
    found = b""
    while len(found) < limit:
        # Up to the end of a page: the next one may not be there.
        part = _read(fd, address, min(_PAGE - address % _PAGE, limit - len(found), 256))
        end = part.find(b"\0")
        if end >= 0:
            return found + part[:end]
        found += part
        address += len(part)
    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def read(fd: int, address: int, size_bytes: int) -> bytes:
    """So many bytes from there. Raises OSError (EFAULT)."""
    data = _read(fd, address, size_bytes)
    if len(data) < size_bytes:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return data


def write(fd: int, address: int, data: bytes) -> None:
    """Put `data` there. Raises OSError (EFAULT)."""
    try:
        written = os.pwrite(fd, data, address) if 0 < address < 1 << 63 else 0
    except OSError:
        written = 0
    if written < len(data):
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


def _read(fd: int, address: int, size_bytes: int) -> bytes:
    try:
        data = os.pread(fd, size_bytes, address) if 0 < address < 1 << 63 else b""
    except OSError:
        data = b""
    if not data:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return data


def numbers(data: bytes, code: str = "I") -> tuple[int, ...]:
    """What a C array of the type `code` holds."""
    return tuple(array.array(code, data))
