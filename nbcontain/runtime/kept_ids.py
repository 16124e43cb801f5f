"""Who each process of a container thinks it is, where only one id exists (credentials(7)). Pure but for /proc.

The kernel's own rules, kept in mind: a process begins as its parent was, and changes as setuid(2) and its like say.
"""

from __future__ import annotations

import errno
import os

from nbcontain.values import dataclass, replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable

KEEP = 0xFFFF_FFFF
"""-1: leave it as it is."""
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Ids:
    """One process's: real, effective and saved; and of files."""

    uids: tuple[int, int, int] = (0, 0, 0)
    gids: tuple[int, int, int] = (0, 0, 0)
    file_uid: int = 0
    file_gid: int = 0
    groups: tuple[int, ...] = ()
    keeps: bytes = b""
    """The program that may go on to change these, whoever it is by then (PR_SET_KEEPCAPS), until it is another."""

    @classmethod
    def of(cls, uid: int, gid: int, groups: tuple[int, ...]) -> Ids:
        return cls((uid, uid, uid), (gid, gid, gid), uid, gid, groups)

    @property
    def is_root(self) -> bool:
        """Whether it may do as it likes."""
        return self.uids[1] == 0

    @property
    def may_change(self) -> bool:
        """Whether it may be anybody."""
        return self.is_root or bool(self.keeps)

    def with_three(self, kind: str, real: int, effective: int, saved: int) -> Ids:
        """setresuid(2), setresgid(2). Raises PermissionError."""
        now = self.uids if kind == "uid" else self.gids
        wanted = [old if new == KEEP else new for old, new in zip(now, (real, effective, saved), strict=True)]
        if not self.may_change and not set(wanted) <= set(now):
            raise PermissionError(errno.EPERM, "")
        return self._with(kind, wanted[0], wanted[1], wanted[2])

    def with_two(self, kind: str, real: int, effective: int) -> Ids:
        """setreuid(2), setregid(2). Raises PermissionError."""
        now = self.uids if kind == "uid" else self.gids
        new_real = now[0] if real == KEEP else real
        new_effective = now[1] if effective == KEEP else effective
        if not self.may_change and (new_real not in now[:2] or new_effective not in now):
            raise PermissionError(errno.EPERM, "")
        changes_saved = real != KEEP or (effective != KEEP and new_effective != now[0])
        return self._with(kind, new_real, new_effective, new_effective if changes_saved else now[2])

    def with_one(self, kind: str, number: int) -> Ids:
        """setuid(2), setgid(2). Raises PermissionError, or ValueError for what is no id."""
        now = self.uids if kind == "uid" else self.gids
        if number == KEEP:
            raise ValueError(number)
        if self.may_change:
            return self._with(kind, number, number, number)
        if number not in (now[0], now[2]):
            raise PermissionError(errno.EPERM, "")
        return self._with(kind, now[0], number, now[2])

    def with_files(self, kind: str, number: int) -> Ids:
        """setfsuid(2), setfsgid(2): what may not be is not done, and nobody is told."""
        now = (*self.uids, self.file_uid) if kind == "uid" else (*self.gids, self.file_gid)
        if number == KEEP or (not self.may_change and number not in now):
            return self
        return replace(self, file_uid=number) if kind == "uid" else replace(self, file_gid=number)

    def with_groups(self, groups: tuple[int, ...]) -> Ids:
        """setgroups(2). Raises PermissionError."""
        if not self.may_change:
            raise PermissionError(errno.EPERM, "")
        return replace(self, groups=groups)

    def _with(self, kind: str, real: int, effective: int, saved: int) -> Ids:
        if kind == "uid":
            return replace(self, uids=(real, effective, saved), file_uid=effective)
        return replace(self, gids=(real, effective, saved), file_gid=effective)


@dataclass(frozen=True, slots=True)
class Seen:
    """What /proc says of a thread."""

    process: int
    parent: int
    group: int
    session: int
    began: int
    """In ticks since boot: a number alone may be another's by now."""


class People:
    """All processes of one container, by their numbers as we count."""

    def __init__(self, first: Ids, look: Callable[[int], Seen]) -> None:
        """`look` raises OSError for a process that is gone."""
        self._first = first
        self._look = look
        self._known: dict[int, tuple[int, Ids]] = {}

    def who(self, thread: int) -> Ids:
        """Who this is. Raises OSError where it is gone."""
        if not self._known:
            # Nobody has ever become anybody else.
            return self._first
        return self._who(self._look(thread))

    def become(self, thread: int, ids: Ids) -> None:
        seen = self._look(thread)
        self._forget_some()
        self._known[seen.process] = (seen.began, ids)

    def meet(self, thread: int) -> None:
        """Note who it is while its parent is still there to tell."""
        if self._known:
            seen = self._look(thread)
            if self._known.get(seen.process, (0,))[0] != seen.began:
                self._known[seen.process] = (seen.began, self._who(seen))

    def _who(self, seen: Seen) -> Ids:
        visited = set()
        later = [seen.group, seen.session]
        while seen.process not in visited:
            began, ids = self._known.get(seen.process, (-1, self._first))
            if began == seen.began:
                return ids
            visited.add(seen.process)
            try:
                seen = self._look(seen.parent)
            except OSError:
                break
        # Its parents are gone. Whoever led its group or session was the same, as a rule; they may be gone too.
        for leader in later:
            if leader in self._known and leader not in visited:
                return self._known[leader][1]
        return self._first

    def _forget_some(self) -> None:
        if len(self._known) < _REMEMBERED:
            return
        for process, (began, _) in list(self._known.items()):
            try:
                if self._look(process).began == began:
                    continue
            except OSError:
                pass
            del self._known[process]


def looker(proc: int) -> Callable[[int], Seen]:
    """What /proc, open as the directory `proc`, says of threads."""

    def look(thread: int) -> Seen:
        if thread <= 0:
            raise ProcessLookupError(errno.ESRCH, "")
        status = _text(proc, f"{thread}/status")
        process = int(status.partition(b"\nTgid:\t")[2].partition(b"\n")[0])
        fields = _text(proc, f"{process}/stat").rpartition(b")")[2].split()
        return Seen(process, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))

    return look


def _text(proc: int, path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
