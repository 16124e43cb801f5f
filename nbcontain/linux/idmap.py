"""User namespaces' id maps: what ids are called inside and outside (user_namespaces(7), newuidmap(1))."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from nbcontain.oci.spec import IdMapping
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_NEWUIDMAP = ("/usr/bin/newuidmap", "/bin/newuidmap", "/usr/local/bin/newuidmap")
_EVERYTHING, _USUAL = 4_294_967_295, 65_536


@dataclass(frozen=True, slots=True)
class IdMap:
    """How a container's users and groups are numbered on the host."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]

    @classmethod
    def identity(cls) -> IdMap:
        """Every id is itself: no user namespace."""
        everything = (IdMapping(0, 0, _EVERYTHING),)
        return cls(everything, everything)

    @classmethod
    def everybody(cls) -> IdMap:
        """The ids that images have, each of them itself, in a user namespace all the same. Only root may have it."""
        usual = (IdMapping(0, 0, _USUAL),)
        return cls(usual, usual)

    @classmethod
    def single(cls, uid: int, gid: int) -> IdMap:
        """Only root exists inside, and it is the caller."""
        return cls((IdMapping(0, uid, 1),), (IdMapping(0, gid, 1),))

    @classmethod
    def ranges(cls, uid: int, gid: int, subuids: Sequence[IdMapping], subgids: Sequence[IdMapping]) -> IdMap:
        """Root inside is the caller; 1 and above are the caller's subordinate ids."""
        return cls((IdMapping(0, uid, 1), *subuids), (IdMapping(0, gid, 1), *subgids))

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> IdMap:
        """The map whose `numbers` these are."""
        uids, gids = (tuple(IdMapping(*each) for each in numbers[name]) for name in ("uids", "gids"))
        return cls(uids, gids)

    def numbers(self) -> dict[str, list[list[int]]]:
        """Itself as plain lists, for another process."""
        return {
            name: [[each.container_id, each.host_id, each.size] for each in mappings]
            for name, mappings in (("uids", self.uids), ("gids", self.gids))
        }

    @property
    def is_identity(self) -> bool:
        return self.uids == IdMap.identity().uids

    @property
    def is_single(self) -> bool:
        """Whether there is only one id, so that no file can belong to anybody else."""
        return self.size == 1

    @property
    def size(self) -> int:
        """How many users there are."""
        return sum(each.size for each in self.uids)

    def within(self, outer: IdMap) -> IdMap:
        """The same for a user namespace that is made within one of the map `outer`, in whose ids it is said.

        Part by part, since the kernel maps nothing that lies across two parts of the outer map.
        """
        return IdMap(_within(self.uids, outer.uids), _within(self.gids, outer.gids))

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """What a user and a group of inside are outside; whoever has no number there stays as it is."""
        return _outside(self.uids, uid), _outside(self.gids, gid)

    def keeping(self, uid: int, gid: int) -> IdMap:
        """Of a map of ranges: the caller, who is root in this one, is that user and group; all others come after each
        other.
        """
        return IdMap(_keeping(self.uids, uid), _keeping(self.gids, gid))

    def has_gid(self, gid: int) -> bool:
        """Whether group `gid` exists inside."""
        return any(each.container_id <= gid < each.container_id + each.size for each in self.gids)

    def write(self, pid: int) -> None:
        """Give the user namespace of process `pid`, which waits, this map. Run by its parent, outside.

        One's own id may be mapped by oneself, ranges only by the setuid (or setcap) newuidmap.
        """
        if self._write_as_root(pid):
            return
        if self.is_single:
            try:
                _write(f"/proc/{pid}/setgroups", "deny")
            except FileNotFoundError:
                # gVisor has no such file, and lets groups be mapped without.
                os.stat(f"/proc/{pid}/gid_map")
            _write(f"/proc/{pid}/uid_map", _lines(self.uids))
            _write(f"/proc/{pid}/gid_map", _lines(self.gids))
            return
        helper = newuidmap()
        if helper is None:
            raise FileNotFoundError(2, "newuidmap is not installed", _NEWUIDMAP[0])
        # Both at once: each is a process of its own, and neither needs the other.
        running = [
            _spawn(helper, pid, self.uids),
            _spawn(helper.replace("newuidmap", "newgidmap"), pid, self.gids),
        ]
        failed = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in running]
        if any(failed):
            raise PermissionError(1, "newuidmap refused the id ranges", f"/proc/{pid}/uid_map")


    def _write_as_root(self, pid: int) -> bool:
        """Whether we may map anything to anything; setgroups(2) stays allowed then. False for ordinary users."""
        try:
            # Groups first: root may do both, others none without having given up setgroups.
            _write(f"/proc/{pid}/gid_map", _lines(self.gids))
        except PermissionError:
            return False
        _write(f"/proc/{pid}/uid_map", _lines(self.uids))
        return True


def _within(mappings: Sequence[IdMapping], outer: Sequence[IdMapping]) -> tuple[IdMapping, ...]:
    found = []
    for each in mappings:
        for around in outer:
            first = max(each.host_id, around.host_id)
            end = min(each.host_id + each.size, around.host_id + around.size)
            if first < end:
                inside = each.container_id + first - each.host_id
                found.append(IdMapping(inside, around.container_id + first - around.host_id, end - first))
    return tuple(found)


def _outside(mappings: Sequence[IdMapping], number: int) -> int:
    for each in mappings:
        if each.container_id <= number < each.container_id + each.size:
            return each.host_id + number - each.container_id
    return number


def _keeping(mappings: Sequence[IdMapping], own: int) -> tuple[IdMapping, ...]:
    caller, *others = mappings
    found, number = [IdMapping(own, caller.host_id, 1)], 0
    for each in others:
        # What comes before it, and what comes after.
        before = max(0, min(own - number, each.size))
        if before:
            found.append(IdMapping(number, each.host_id, before))
            number += before
        if number == own:
            number += 1
        if before < each.size:
            found.append(IdMapping(number, each.host_id + before, each.size - before))
            number += each.size - before
    return tuple(found)


def newuidmap() -> str | None:
    """Where newuidmap is, if it is installed."""
    return next((path for path in _NEWUIDMAP if os.access(path, os.X_OK)), None)


def subordinate(path: str, uid: int, name: str) -> tuple[IdMapping, ...]:
    """The ranges that a subuid(5) file gives to a user, numbered from 1 inside; () if it gives none."""
    found: list[IdMapping] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            text = lines.read()
    except OSError:
        return ()
    start = 1
    for line in text.splitlines():
        who, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if who in (name, str(uid)) and who and first.isdecimal() and count.strip().isdecimal() and int(count):
            found.append(IdMapping(start, int(first), int(count)))
            start += int(count)
    return tuple(found)


def _lines(mappings: Sequence[IdMapping]) -> str:
    return "".join(f"{each.container_id} {each.host_id} {each.size}\n" for each in mappings)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # One write: the kernel takes a map whole or not at all.
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _spawn(helper: str, pid: int, mappings: Sequence[IdMapping]) -> int:
    words = [str(number) for each in mappings for number in (each.container_id, each.host_id, each.size)]
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(helper, [helper, str(pid), *words], {"PATH": "/usr/bin:/bin"}, file_actions=quiet)
