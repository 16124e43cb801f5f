"""A process that does a few calls of the kernel, the last of them execve(2), and has no memory but what these need.

To fork an interpreter takes the kernel half a millisecond and more, each page that its child only looks at is copied,
and execve(2) takes as long again to take it apart. So all that the child hands to the kernel is laid out beforehand in
memory of its own, with the machine code that does the calls, and it gets nothing else of its parent's (madvise(2)).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence

from nbcontain.linux import code_memory, little_programs, syscalls
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    Argument = int | bytes | tuple["Argument", ...]
    """A number, or what is pointed to: bytes, or several arguments, one after the other."""
    Call = tuple[int, tuple[Argument, ...]]
    """The number of a call of the kernel, and up to three arguments."""

# Unlike CDLL it keeps Python's lock: nobody has to look afterwards for threads, of which the child has but one.
_libc = ctypes.PyDLL(None, use_errno=True)
_madvise, _syscall = _libc.madvise, _libc.syscall
_word, _int, _pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
_madvise.argtypes = (_pointer, _word, _int)
_syscall.restype = ctypes.c_long
_pthread_self = _libc.pthread_self
_pthread_self.restype = _word
_SIGCHLD = 17
_CLONE_VM, _CLONE_VFORK, _CLONE_PARENT, _CLONE_PARENT_SETTID = 0x100, 0x4000, 0x8000, 0x100000
_PR_GET_CHILD_SUBREAPER = 37
_DONT_FORK, _DO_FORK = 10, 11
_END = 1 << 56
"""No memory of a process is beyond that."""
_IS_ARM = os.uname().machine == "aarch64"
_SYS_SETSID, _SYS_EXECVE = (157, 221) if _IS_ARM else (112, 59)
_CODE = little_programs.CALLS.get(os.uname().machine, b"")
_WORDS = 4
"""So many are the head of the code's table, and each call: its number and its arguments."""


def fork(flags: int = 0) -> int:
    """os.fork with further CLONE_… flags, in a process with one thread. Raises OSError."""
    pid: int = _syscall(ctypes.c_long(syscalls.SYS_CLONE), ctypes.c_long(_SIGCHLD | flags), None, None, None, None)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def succeeded() -> int:
    """Have another child of our parent's be what this process is, with its memory and copies of its descriptors. Gives
    its pid, as ours is counted, to it; we wait in the kernel until it has executed a program or ended, and end then.

    To execute, it leaves that memory to us: to take an interpreter's apart keeps whoever waits for the program longer
    than execve(2) does otherwise. Only for a process with one thread. Raises OSError, in ours, where that cannot be.
    """
    place = code_memory.loaded(little_programs.SUCCESSION)
    pid = ctypes.c_int()
    flags = _CLONE_VM | _CLONE_VFORK | _CLONE_PARENT | _CLONE_PARENT_SETTID | _SIGCHLD
    given: int = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_long, _pointer)(place)(flags, ctypes.addressof(pid))
    if given < 0:
        raise OSError(-given, os.strerror(-given))
    return pid.value


def has_heirs() -> bool:
    """Whether a process can inherit what its descendants leave (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    return bool(_libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(ctypes.c_int()), None, None, None) == 0)


def is_possible() -> bool:
    """Whether this process may make code of its own, as `Calls` does: some machines let nobody do that."""
    return bool(_CODE) and code_memory.is_possible(_CODE)


@dataclass(frozen=True, slots=True)
class Failure:
    """What kept a child from becoming its program."""

    errno: int
    is_last: bool
    """Whether it is the last call that did not succeed."""


@dataclass(frozen=True, slots=True)
class Child:
    """One that does its calls by itself."""

    pid: int
    told: int
    count: int

    def failure(self) -> Failure | None:
        """Wait until it has executed its program, or has ended. To be asked once."""
        try:
            told = os.read(self.told, 16)
        finally:
            os.close(self.told)
        if len(told) < 16:
            return None
        given, place = struct.unpack("qq", told)
        return Failure(-given, place == self.count * _WORDS * 8)


class Calls:
    """What a child does, in this order; the last one executes a program. Only for a process with one thread."""

    def __init__(self, *calls: Call) -> None:
        self._calls = calls
        self._size = len(_laid_out(0, calls, 0, 0)[0])

    def fork(self, *, beside: bool = False) -> Child:
        """A child, or `beside` this process another one of its parent. Raises OSError.

        It is the last child of this process's: no other one would have anything of its memory.
        """
        told, telling = os.pipe2(os.O_CLOEXEC)
        try:
            flags = _SIGCHLD | (_CLONE_PARENT if beside else 0)
            first = code_memory.pages(len(_CODE))
            size = first + code_memory.pages(self._size)
            start = code_memory.mapped(size)
            data, table = _laid_out(start + first, self._calls, flags, telling)
            ctypes.memmove(start + first, bytes(data), len(data))
            code_memory.make_code(start, _CODE)
            _keep_but(start, start + size)
            pid: int = ctypes.PYFUNCTYPE(ctypes.c_long, _pointer)(start)(table)
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
        except BaseException:
            os.close(told)
            raise
        finally:
            os.close(telling)
        return Child(pid, told, len(self._calls))


def _laid_out(start: int, calls: Sequence[Call], flags: int, telling: int) -> tuple[bytearray, int]:
    """The memory from `start` on that has all of these calls in it, and where their table is."""
    data = bytearray()

    def placed(argument: Argument) -> int:
        if isinstance(argument, int):
            return argument
        if isinstance(argument, tuple):
            argument = struct.pack(f"{len(argument)}Q", *[placed(each) for each in argument])
        place = start + len(data)
        data.extend(argument + bytes(-len(argument) % 8))
        return place

    table: list[Argument] = [flags, 0, telling, 0]
    for number, arguments in calls:
        table += [number, *arguments, *(0,) * (_WORDS - 1 - len(arguments))]
    return data, placed(tuple(table))


def _keep_but(start: int, end: int) -> None:
    """Have children get nothing of this process's memory but what is between these places.

    Where a kernel knows nothing of that, they get all of it. It says each time that not all there might be is there.
    """
    _madvise(0, start, _DONT_FORK)
    _madvise(end, _END - end, _DONT_FORK)
    # There the kernel notes on which processor a thread is, and ends one that has no such place any more (rseq(2)).
    try:
        offset = ctypes.c_ssize_t.in_dll(_libc, "__rseq_offset").value
    except ValueError:
        return
    page = os.sysconf("SC_PAGESIZE")
    _madvise((_pthread_self() + offset) // page * page, page, _DO_FORK)


def lead_session() -> Call:
    """Be the leader of a new session (setsid(2))."""
    return _SYS_SETSID, ()


def load_filter(program: bytes, flags: int) -> Call:
    """As `syscalls.seccomp`."""
    return syscalls.SYS_SECCOMP, (syscalls.SECCOMP_SET_MODE_FILTER, flags, (len(program) // 8, program))


def set_capabilities(effective: int, permitted: int, inheritable: int) -> Call:
    """As `syscalls.capset`."""
    return syscalls.SYS_CAPSET, syscalls.capability_words(effective, permitted, inheritable)


def execute(path: str, args: Sequence[str], env: Mapping[str, str]) -> Call:
    """As os.execve. Raises ValueError for what cannot be handed over."""
    return _SYS_EXECVE, (_word_of(path), _words_of(args), _words_of([f"{name}={value}" for name, value in env.items()]))


def _words_of(texts: Sequence[str]) -> tuple[Argument, ...]:
    return (*map(_word_of, texts), 0)


def _word_of(text: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded + b"\0"
