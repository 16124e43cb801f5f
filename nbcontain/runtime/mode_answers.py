"""Answers to what changes a file's mode, times, attributes or length, where paths are only translated.

A program that outlives its translator, or writes over a path once that was translated, names files of this machine;
Landlock forbids to open those, but not to change what these calls change; nor what may be read, as libraries may. So it
is done here: to what is open, and is the container's. Run by the answerer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from nbcontain.linux.notify import Call
from nbcontain.runtime.asked import CWD, MASK, Asked, numbers

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable

_NO_FOLLOW = 0x100
_ATTRIBUTE_BYTES = 1 << 16
_NOW, _OMIT = (1 << 30) - 1, (1 << 30) - 2
"""UTIME_NOW and UTIME_OMIT (utimensat(2))."""
_IN_32_BITS = frozenset({0x40000003, 0x40000028})


class ModeAnswers:
    """Each public method answers the call that it is called after."""

    def __init__(self, asked: Asked, is_inside: Callable[[int], bool]) -> None:
        """`is_inside` says whether what is open is the container's."""
        self._asked, self._is_inside = asked, is_inside

    def chmod(self, call: Call) -> None:
        self._set_mode(call, CWD, *call.arguments[:2])

    def fchmodat(self, call: Call) -> None:
        self._set_mode(call, *call.arguments[:3])

    def _set_mode(self, call: Call, directory: int, address: int, mode: int) -> None:
        self._change(call, directory, address, lambda name: os.chmod(name, stat.S_IMODE(mode & 0xFFFF)))

    def truncate(self, call: Call) -> None:
        size = call.arguments[1]
        self._change(call, CWD, call.arguments[0], lambda name: os.truncate(name, size))

    def utimensat(self, call: Call) -> None:
        self._set_times(call, *call.arguments[:3], unit_ns=1, follow=not call.arguments[3] & _NO_FOLLOW)

    def utimensat_time64(self, call: Call) -> None:
        self._set_times(call, *call.arguments[:3], unit_ns=1, follow=not call.arguments[3] & _NO_FOLLOW, wide=True)

    def futimesat(self, call: Call) -> None:
        self._set_times(call, *call.arguments[:3], unit_ns=1000)

    def utimes(self, call: Call) -> None:
        self._set_times(call, CWD, *call.arguments[:2], unit_ns=1000)

    def utime(self, call: Call) -> None:
        self._set_times(call, CWD, *call.arguments[:2], unit_ns=0)

    def _set_times(
        self, call: Call, directory: int, address: int, times: int, *, unit_ns: int, follow: bool = True,
        wide: bool = False,
    ) -> None:  # fmt: skip
        """`unit_ns` is that of what is said beside seconds; 0 where nothing is. `wide` numbers are said by 32 bits."""
        given: list[tuple[int, int]] = [(0, _NOW)] * 2
        if times:
            number = "i" if call.machine in _IN_32_BITS and not wide else "q"
            form = struct.Struct(f"={number * (4 if unit_ns else 2)}")
            said = form.unpack(self._asked.read(call, times, form.size))
            given = list(zip(said[::2], said[1::2], strict=True)) if unit_ns else [(each, 0) for each in said]
        if unit_ns == 1000 and times:
            given = [(seconds, part * 1000) for seconds, part in given]

        def change(name: str) -> None:
            status = os.stat(name)
            kept = (status.st_atime_ns, status.st_mtime_ns)
            if given == [(0, _NOW)] * 2:
                os.utime(name)
                return
            os.utime(name, ns=(_moment(given[0], kept[0]), _moment(given[1], kept[1])))

        if not address and directory & MASK != CWD:
            self._change_open(call, directory, change)
        else:
            self._change(call, directory, address, change, follow=follow)

    def setxattr(self, call: Call, *, follow: bool = True) -> None:
        attribute, value, flags = self._attribute(call)
        self._change(
            call, CWD, call.arguments[0], lambda name: os.setxattr(name, attribute, value, flags), follow=follow
        )

    def lsetxattr(self, call: Call) -> None:
        self.setxattr(call, follow=False)

    def removexattr(self, call: Call, *, follow: bool = True) -> None:
        attribute = self._asked.path(call, call.arguments[1])
        self._change(call, CWD, call.arguments[0], lambda name: os.removexattr(name, attribute), follow=follow)

    def lremovexattr(self, call: Call) -> None:
        self.removexattr(call, follow=False)

    def fchmod(self, call: Call) -> None:
        mode = stat.S_IMODE(call.arguments[1] & 0xFFFF)
        self._change_open(call, call.arguments[0], lambda name: os.chmod(name, mode))

    def fsetxattr(self, call: Call) -> None:
        attribute, value, flags = self._attribute(call)
        self._change_open(call, call.arguments[0], lambda name: os.setxattr(name, attribute, value, flags))

    def fremovexattr(self, call: Call) -> None:
        attribute = self._asked.path(call, call.arguments[1])
        self._change_open(call, call.arguments[0], lambda name: os.removexattr(name, attribute))

    def _attribute(self, call: Call) -> tuple[bytes, bytes, int]:
        """Its name, its value, and whether it is to be there, or not."""
        size, flags = numbers(call, 2, 3)
        if size > _ATTRIBUTE_BYTES:
            raise OSError(errno.E2BIG, "")
        value = self._asked.read(call, call.arguments[2], size) if size else b""
        return self._asked.path(call, call.arguments[1]), value, flags

    def _change(
        self, call: Call, directory: int, address: int, change: Callable[[str], None], *, follow: bool = True
    ) -> None:
        self._do(call, self._place(call, directory, self._asked.path(call, address), follow=follow), change)

    def _change_open(self, call: Call, number: int, change: Callable[[str], None]) -> None:
        fd = self._asked.copy_of(call, number & MASK)
        self._do(call, fd, change, may_be_outside=self._is_made_inside(fd))

    def _do(self, call: Call, place: int, change: Callable[[str], None], *, may_be_outside: bool = False) -> None:
        """To what is open as `place`, which is closed."""
        try:
            if not may_be_outside and not self._is_inside(place):
                raise PermissionError(errno.EPERM, "")
            self._asked.check(call)
            change(f"self/fd/{place}")
        finally:
            os.close(place)
        self._asked.give(call)

    def _is_made_inside(self, fd: int) -> bool:
        """A pipe, say; or a file to be written to: then Landlock let it, as it lets a translator in its scratch."""
        is_written = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        return not self._asked.path_of(fd).startswith(b"/") or (is_written and stat.S_ISREG(os.fstat(fd).st_mode))

    def _place(self, call: Call, directory: int, path: bytes, *, follow: bool) -> int:
        try:
            return self._asked.place(call, directory & MASK, path, follow=follow)
        except OSError as error:
            # What is open, by the kernel's link to it.
            match path.split(b"/"):
                case [b"", b"proc", pid, b"fd", number] if error.errno == errno.ELOOP and number.isdigit():
                    if pid in (b"self", b"%d" % call.pid, self._asked.status(call.pid, b"Tgid")):
                        return self._asked.of_caller(call, int(number))
            raise


def _moment(said: tuple[int, int], kept_ns: int) -> int:
    """What `utimensat` means by one time, in ns. Raises ValueError for none."""
    import time

    seconds, part_ns = said
    if part_ns == _OMIT:
        return kept_ns
    if part_ns == _NOW:
        return time.time_ns()
    if not 0 <= part_ns < 1_000_000_000:
        raise ValueError(part_ns)
    return seconds * 1_000_000_000 + part_ns
