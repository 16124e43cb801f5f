"""Answers to chown(2) and mknod(2), where the kernel cannot do it: it is kept in mind. Run by the answerer."""

from __future__ import annotations

import errno
import os
import stat

from nbcontain.linux import syscalls
from nbcontain.linux.notify import Call
from nbcontain.runtime.asked import CWD, MASK, Asked, numbers
from nbcontain.runtime.kept_ids import KEEP, Ids, People
from nbcontain.store.makers import Makers
from nbcontain.store.owners import Ledger, Record
from nbcontain.store.whiteouts import join

_NO_FOLLOW, _EMPTY_PATH = 0x100, 0x1000
_DOWNWARDS = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_LOOKS = 5
"""At a path that others change meanwhile."""


class OwnerAnswers:
    """Each method answers the call that it is called after. What is recorded is what is open, never what has a name."""

    def __init__(self, asked: Asked, people: People, ledger: Ledger, makers: Makers, root: str = "/") -> None:
        """`root` is the container's, as we see it; `makers` grow as programs become others."""
        self._asked, self._people, self._ledger, self._makers = asked, people, ledger, makers
        self._above = os.fsencode(root.rstrip("/")) + b"/"
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._root_mount = asked.mount_of(self._root)

    def chown(self, call: Call) -> None:
        self._give_away(call, CWD, call.arguments[0], *numbers(call, 2, 1), follow=True)

    def lchown(self, call: Call) -> None:
        self._give_away(call, CWD, call.arguments[0], *numbers(call, 2, 1), follow=False)

    def fchownat(self, call: Call) -> None:
        flags = call.arguments[4]
        directory = call.arguments[0] & MASK
        if flags & _EMPTY_PATH and not self._asked.path(call, call.arguments[1]):
            self._give_away_open(call, directory, *numbers(call, 2, 2))
            return
        self._give_away(call, directory, call.arguments[1], *numbers(call, 2, 2), follow=not flags & _NO_FOLLOW)

    def fchown(self, call: Call) -> None:
        self._give_away_open(call, call.arguments[0] & MASK, *numbers(call, 2, 1))

    def _give_away(self, call: Call, directory: int, address: int, uid: int, gid: int, *, follow: bool) -> None:
        path = self._asked.path(call, address)
        try:
            place = self._asked.place(call, directory, path, follow=follow)
        except OSError as error:
            if error.errno == errno.ELOOP and path.startswith((b"/dev/std", b"/dev/fd/", b"/proc/")):
                # A pipe or a terminal, by a link of the kernel's: nothing of it is kept.
                self._asked.give(call)
                return
            raise
        try:
            self._record(call, place, uid, gid)
        finally:
            os.close(place)

    def _give_away_open(self, call: Call, fd: int, uid: int, gid: int) -> None:
        place = self._asked.of_caller(call, fd)
        try:
            self._record(call, place, uid, gid)
        finally:
            os.close(place)

    def _record(self, call: Call, place: int, uid: int, gid: int) -> None:
        """Keep whom what is open as `place` is given to."""
        ids = self._people.who(call.pid)
        status = os.fstat(place)
        path = self._path_of(place)
        if path is None:
            # Another file system's: a volume, a pipe, shared memory. Nothing of it is kept beyond its end.
            self._asked.check(call)
            self._asked.give(call)
            return
        name = f"self/fd/{place}"
        can_hold = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        known = self._ledger.known(name if can_hold else None, path, status)
        before = known or (0, 0)
        if known is None and self._makers:
            before = self._maker(path)
        if not ids.is_root and before[0] == ids.file_uid:
            # What stat(2) says they are: who wants to change one of them alone may say so of the other (busybox). It is
            # root's, or where no namespace makes that of us, ours.
            uid, gid = (KEEP if new == old else new for new, old in ((uid, status.st_uid), (gid, status.st_gid)))
        after = (before[0] if uid == KEEP else uid, before[1] if gid == KEEP else gid)
        if not ids.is_root and not _may_give(ids, before, after):
            raise PermissionError(errno.EPERM, "")
        self._asked.check(call)
        if after != (known or (0, 0)) or (known is None and self._makers):
            if after == (0, 0) and can_hold and not self._makers:
                is_on_disk = self._ledger.forget(name, path)
            else:
                time_ns = None if can_hold else status.st_mtime_ns
                is_on_disk = self._ledger.record(name if can_hold else None, path, Record(*after, mtime_ns=time_ns))
            if not is_on_disk:
                # It is to be part of the layer, as what is given away on a disk would be.
                os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns))
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            # As the kernel does it (chown(2)).
            kept = status.st_mode & ~stat.S_ISUID
            os.chmod(name, stat.S_IMODE(kept & ~stat.S_ISGID if kept & stat.S_IXGRP else kept))
        self._asked.give(call)

    def _maker(self, path: bytes) -> tuple[int, int]:
        """Whose what is there will be recorded to be, if nobody says otherwise (`new_owners`)."""
        since_ns, owner, hands_on, here = self._makers.since_ns, (0, 0), False, b""
        for part in (b"", *path.split(b"/")):
            here = join(here, part)
            found = syscalls.openat2(self._root, os.fsdecode(here) or ".", os.O_PATH | os.O_NOFOLLOW, 0, _DOWNWARDS)
            try:
                status = os.fstat(found)
                can_hold = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
                known = self._ledger.known(f"self/fd/{found}" if can_hold else None, here, status)
                born_ns = syscalls.birth_ns(found) or 0
            finally:
                os.close(found)
            if known is None:
                known = self._makers.of(born_ns, owner, hands_on=hands_on) if born_ns >= since_ns else (0, 0)
            owner, hands_on = known, bool(status.st_mode & stat.S_ISGID)
        return owner

    def has(self, place: int) -> bool:
        """Whether what is open is the container's."""
        return self._path_of(place) is not None

    def _path_of(self, place: int) -> bytes | None:
        """The path of what is open, below the container's root; None if it is another file system's, or outside.

        Who has a directory from outside walks out of a chroot by it, and the kernel's word for what is there looks like
        a path inside. So it is ours only if the path leads back to it, from the root and down.
        """
        if self._asked.mount_of(place) != self._root_mount:
            return None
        for _ in range(_LOOKS):
            path = self._asked.path_of(place)
            if not (path + b"/").startswith(self._above):
                return None
            below = path[len(self._above) :]
            if self._leads_to(below, place):
                return below
        return None

    def _leads_to(self, below: bytes, place: int) -> bool:
        flags = os.O_PATH | os.O_NOFOLLOW
        try:
            found = syscalls.openat2(self._root, os.fsdecode(below) or ".", flags, 0, _DOWNWARDS)
        except OSError:
            return False
        try:
            return os.path.samestat(os.fstat(found), os.fstat(place))
        finally:
            os.close(found)

    def mknod(self, call: Call) -> None:
        self._make_node(call, CWD, *call.arguments[:3])

    def mknodat(self, call: Call) -> None:
        self._make_node(call, call.arguments[0] & MASK, *call.arguments[1:4])

    def _make_node(self, call: Call, directory: int, address: int, mode: int, device: int) -> None:
        """A device node: an empty file, and what it stands for."""
        kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(mode & 0xFFFF))
        major, minor = os.major(device & MASK), os.minor(device & MASK)
        if kind is None or not (major or minor):
            self._asked.let_through(call)
            return
        ids = self._people.who(call.pid)
        if not ids.is_root:
            raise PermissionError(errno.EPERM, "")
        parent, slash, name = self._asked.path(call, address).rpartition(b"/")
        if name in (b"", b".", b".."):
            raise FileExistsError(errno.EEXIST, "")
        place = self._asked.place(call, directory, parent + slash or b".", follow=True)
        try:
            if (below := self._path_of(place)) is None:
                raise PermissionError(errno.EPERM, "")
            mask = self._asked.umask(call.pid)
            self._asked.check(call)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(name, flags, stat.S_IMODE(mode) & ~mask, dir_fd=place)
            try:
                record = Record(ids.file_uid, ids.file_gid, (kind, major, minor))
                self._ledger.record(made, join(below, name), record)
            finally:
                os.close(made)
        finally:
            os.close(place)
        self._asked.give(call)


def _may_give(ids: Ids, before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether one who is not root may: only a group of one's own, of a file of one's own (chown(2))."""
    return after[0] == before[0] == ids.file_uid and after[1] in (before[1], ids.file_gid, *ids.groups)
