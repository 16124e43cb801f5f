"""Answers to what would change the host's devices, where a container's root is the host's. Run by the answerer.

Where none of its own can be made for a container, those of the host are handed in, and whoever is root may give them
another mode, another owner and other attributes by a descriptor. So these calls are done here: as the caller, to what
is open, so that nothing can be put in its place.
"""

from __future__ import annotations

import errno
import os
import stat

from nbcontain.linux import syscalls
from nbcontain.linux.notify import Call
from nbcontain.runtime.asked import Asked, numbers
from nbcontain.runtime.kept_ids import KEEP

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable

_NO_FOLLOW, _EMPTY_PATH = 0x100, 0x1000
_POWERS = sum(1 << number for number in (0, 3, 21, 31))
"""CAP_CHOWN, FOWNER, SYS_ADMIN and SETFCAP: with one of these one need not be root for it."""
_ATTRIBUTE_BYTES = 1 << 16
_KEEP_16 = 0xFFFF


class GuardAnswers:
    """Each public method answers the call that it is called after."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._own = syscalls.capget()
        self._own_groups = os.getgroups()

    def fchmod(self, call: Call) -> None:
        mode = stat.S_IMODE(call.arguments[1] & 0xFFFF)
        self._change(call, self._open(call), lambda name: os.chmod(name, mode))

    def fchown(self, call: Call) -> None:
        self._change(call, self._open(call), _giving(*numbers(call, 2, 1)))

    fchown32 = fchown

    def fchown_16(self, call: Call) -> None:
        """Of programs of 32 bits that are older than larger numbers."""
        owner = (KEEP if number & _KEEP_16 == _KEEP_16 else number & _KEEP_16 for number in numbers(call, 2, 1))
        self._change(call, self._open(call), _giving(*owner))

    def fchownat(self, call: Call) -> None:
        """With AT_EMPTY_PATH: others do not come here."""
        directory, owner, flags = numbers(call, 1)[0], numbers(call, 2, 2), call.arguments[4]

        def place() -> int:
            if path := self._asked.path(call, call.arguments[1]):
                return self._asked.place(call, directory, path, follow=not flags & _NO_FOLLOW)
            return self._asked.of_caller(call, directory)

        self._change(call, place, _giving(*owner))

    def fsetxattr(self, call: Call) -> None:
        def change(name: str) -> None:
            os.setxattr(name, attribute, value, flags)

        size_bytes, flags = numbers(call, 2, 3)
        if size_bytes > _ATTRIBUTE_BYTES:
            raise ValueError(size_bytes)
        attribute = self._asked.path(call, call.arguments[1])
        value = self._asked.read(call, call.arguments[2], size_bytes) if size_bytes else b""
        self._change(call, self._open(call), change)

    def fremovexattr(self, call: Call) -> None:
        attribute = self._asked.path(call, call.arguments[1])
        self._change(call, self._open(call), lambda name: os.removexattr(name, attribute))

    def _open(self, call: Call) -> Callable[[], int]:
        return lambda: self._asked.of_caller(call, numbers(call, 1)[0])

    def _change(self, call: Call, place: Callable[[], int], change: Callable[[str], None]) -> None:
        """Do it to what `place` gives, an O_PATH descriptor, unless that is the host's. Raises OSError."""
        uids, gids, others, powers = self._asked.statuses(call.pid, b"Uid", b"Gid", b"Groups", b"CapEff")
        uid, gid, capabilities = int(uids.split()[3]), int(gids.split()[3]), int(powers, 16)
        groups = [*map(int, others.split())]
        if uid and not capabilities & _POWERS:
            # The kernel lets nobody else change what is root's, whatever has that number by then.
            self._asked.let_through(call)
            return
        fd = place()
        try:
            status = os.fstat(fd)
            self._asked.check(call)
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                raise PermissionError(errno.EPERM, "")
            self._as(uid, gid, groups, capabilities, lambda: change(f"self/fd/{fd}"))
        finally:
            os.close(fd)
        self._asked.give(call)

    def _as(self, uid: int, gid: int, groups: list[int], capabilities: int, do: Callable[[], None]) -> None:
        """With the caller's power, and no more."""
        effective, permitted, inheritable = self._own
        has_others = groups != self._own_groups
        if has_others:
            os.setgroups(groups)
        own_gid, own_uid = syscalls.setfsgid(gid), syscalls.setfsuid(uid)
        syscalls.capset(capabilities & permitted, permitted, inheritable)
        try:
            do()
        finally:
            syscalls.capset(effective, permitted, inheritable)
            syscalls.setfsuid(own_uid)
            syscalls.setfsgid(own_gid)
            if has_others:
                os.setgroups(self._own_groups)


def _giving(uid: int, gid: int) -> Callable[[str], None]:
    owner = [-1 if number == KEEP else number for number in (uid, gid)]
    return lambda name: os.chown(name, *owner)
