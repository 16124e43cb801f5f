"""A process that does a few calls of the kernel, the last of them execve(2), and never comes back to Python.

After a fork each page is copied that either of both writes to, and Python writes to what it merely looks at: some 300
pages from fork to execve, which are as many faults. So all that the child hands to the kernel is made ready before it
is forked, and the little that is left to be done by it touches a tenth of that.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence

from nbcontain.linux import syscalls

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

    Call = tuple[Any, tuple[Any, ...]]

# Unlike CDLL it keeps Python's lock: nobody has to look afterwards for threads, of which the child has but one.
_libc = ctypes.PyDLL(None, use_errno=True)
_setsid, _execve, _syscall = _libc.setsid, _libc.execve, _libc.syscall
_setsid.argtypes = ()
_syscall.restype = ctypes.c_long
_SIGCHLD, _CLONE_PARENT = 17, 0x8000
_PR_GET_CHILD_SUBREAPER = 37


def fork(flags: int = 0) -> int:
    """os.fork with further CLONE_… flags, in a process with one thread. Raises OSError."""
    pid: int = _syscall(ctypes.c_long(syscalls.SYS_CLONE), ctypes.c_long(_SIGCHLD | flags), None, None, None, None)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def has_heirs() -> bool:
    """Whether a process can inherit what its descendants leave (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    return bool(_libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(ctypes.c_int()), None, None, None) == 0)


class Calls:
    """What a child does, in this order. Only for a process with one thread."""

    def __init__(self, *calls: Call) -> None:
        self._calls = calls
        self._failed = -1
        self.errno = 0
        """Of the call that did not succeed, in the child."""

    def fork(self, *, beside: bool = False) -> int:
        """A child, or `beside` this process another one of its parent; gives its pid. In the child, where a call does
        not succeed, 0. Raises OSError."""
        pid = fork(_CLONE_PARENT if beside else 0)
        if pid == 0:
            for number, (function, arguments) in enumerate(self._calls):
                if function(*arguments) < 0:
                    self.errno, self._failed = ctypes.get_errno(), number
                    break
        return pid

    def is_last(self) -> bool:
        """Whether it is the last one that did not succeed."""
        return self._failed == len(self._calls) - 1


def lead_session() -> Call:
    """Be the leader of a new session (setsid(2))."""
    return _setsid, ()


def load_filter(program: bytes, flags: int) -> Call:
    """As `syscalls.seccomp`."""
    instructions = ctypes.c_char_p(program)
    wanted = struct.pack("H6xP", len(program) // 8, _address(instructions))
    # The last one is not read by the kernel: it keeps the instructions where they are.
    return _syscall, (
        ctypes.c_long(syscalls.SYS_SECCOMP), ctypes.c_long(syscalls.SECCOMP_SET_MODE_FILTER), ctypes.c_long(flags),
        ctypes.c_char_p(wanted), instructions,
    )  # fmt: skip


def set_capabilities(effective: int, permitted: int, inheritable: int) -> Call:
    """As `syscalls.capset`."""
    header, data = syscalls.capability_words(effective, permitted, inheritable)
    return _syscall, (ctypes.c_long(syscalls.SYS_CAPSET), ctypes.c_char_p(header), ctypes.c_char_p(data))


def execute(path: str, args: Sequence[str], env: Mapping[str, str]) -> Call:
    """As os.execve. Raises ValueError for what cannot be handed over."""
    words = [path, *args, *(f"{name}={value}" for name, value in env.items())]
    encoded = [os.fsencode(each) for each in words]
    if any(b"\0" in each for each in encoded):
        raise ValueError("embedded null byte")
    # Not arrays of ctypes': a type would be made for each length.
    text = ctypes.c_char_p(b"\0".join(encoded))
    places, place = [], _address(text)
    for each in encoded:
        places.append(place)
        place += len(each) + 1
    first = 1 + len(args)
    pointers = [struct.pack(f"{len(some) + 1}P", *some, 0) for some in (places[1:first], places[first:])]
    return _execve, (text, *map(ctypes.c_char_p, pointers))


def _address(text: ctypes.c_char_p) -> int:
    """Where the bytes are that this was made of, for as long as it is there."""
    return ctypes.c_size_t.from_buffer(text).value
