"""Answers of who a process is, and wants to be, where only one id exists (credentials(7)). Run by the answerer."""

from __future__ import annotations

import array
from collections.abc import Callable

from nbcontain.linux import notify
from nbcontain.linux.notify import Call
from nbcontain.runtime.asked import MASK, Asked, numbers
from nbcontain.runtime.kept_ids import Ids, People
from nbcontain.store.makers import Notes
from nbcontain.values import replace

_MAX_GROUPS = 65536


class IdAnswers:
    """Each method answers the call that it is called after."""

    def __init__(self, asked: Asked, people: People, notes: Notes) -> None:
        self._asked, self._people, self._notes = asked, people, notes

    def getuid(self, call: Call) -> None:
        self._asked.give(call, self._people.who(call.pid).uids[0])

    def geteuid(self, call: Call) -> None:
        self._asked.give(call, self._people.who(call.pid).uids[1])

    def getgid(self, call: Call) -> None:
        self._asked.give(call, self._people.who(call.pid).gids[0])

    def getegid(self, call: Call) -> None:
        self._asked.give(call, self._people.who(call.pid).gids[1])

    def getresuid(self, call: Call) -> None:
        self._put_three(call, self._people.who(call.pid).uids)

    def getresgid(self, call: Call) -> None:
        self._put_three(call, self._people.who(call.pid).gids)

    def _put_three(self, call: Call, numbers: tuple[int, int, int]) -> None:
        for address, number in zip(call.arguments, numbers, strict=False):
            self._asked.write(call, address, array.array("I", [number]).tobytes())
        self._asked.give(call)

    def getgroups(self, call: Call) -> None:
        groups = self._people.who(call.pid).groups
        room = call.arguments[0] & MASK
        if room and (room < len(groups) or room > 1 << 31):
            raise ValueError(room)
        if room and groups:
            self._asked.write(call, call.arguments[1], array.array("I", groups).tobytes())
        self._asked.give(call, len(groups))

    def _change(self, call: Call, changed: Callable[[Ids], Ids]) -> None:
        now = self._now(call)
        after = changed(now)
        self._asked.check(call)
        if after != now:
            self._become(call, after)
        self._asked.give(call)

    def _now(self, call: Call) -> Ids:
        """Who it is, with what is kept beyond a change: by the program that asked for that, and by no other."""
        ids = self._people.who(call.pid)
        if ids.keeps and ids.keeps != self._asked.program(call.pid):
            ids = replace(ids, keeps=b"")
        return ids

    def prctl(self, call: Call) -> None:
        """PR_SET_KEEPCAPS, as setpriv(1) asks for it before it changes the user, and then the group."""
        now = self._now(call)
        if now.is_root:
            keeps = self._asked.program(call.pid) if call.arguments[1] else b""
            self._asked.check(call)
            if keeps != now.keeps:
                self._people.become(call.pid, replace(now, keeps=keeps))
        self._asked.let_through(call)

    def _become(self, call: Call, ids: Ids) -> None:
        self._people.become(call.pid, ids)
        if ids.file_uid:
            self._notes.note(ids.file_uid, ids.file_gid)

    def setuid(self, call: Call) -> None:
        self._change(call, lambda ids: ids.with_one("uid", call.arguments[0] & MASK))

    def setgid(self, call: Call) -> None:
        self._change(call, lambda ids: ids.with_one("gid", call.arguments[0] & MASK))

    def setreuid(self, call: Call) -> None:
        self._change(call, lambda ids: ids.with_two("uid", *numbers(call, 2)))

    def setregid(self, call: Call) -> None:
        self._change(call, lambda ids: ids.with_two("gid", *numbers(call, 2)))

    def setresuid(self, call: Call) -> None:
        self._change(call, lambda ids: ids.with_three("uid", *numbers(call, 3)))

    def setresgid(self, call: Call) -> None:
        self._change(call, lambda ids: ids.with_three("gid", *numbers(call, 3)))

    def setfsuid(self, call: Call) -> None:
        self._set_files(call, "uid")

    def setfsgid(self, call: Call) -> None:
        self._set_files(call, "gid")

    def _set_files(self, call: Call, kind: str) -> None:
        now = self._now(call)
        after = now.with_files(kind, call.arguments[0] & MASK)
        self._asked.check(call)
        if after != now:
            self._become(call, after)
        self._asked.give(call, now.file_uid if kind == "uid" else now.file_gid)

    def setgroups(self, call: Call) -> None:
        count = call.arguments[0] & MASK
        if count > _MAX_GROUPS:
            raise ValueError(count)
        groups = notify.numbers(self._asked.read(call, call.arguments[1], 4 * count)) if count else ()
        self._change(call, lambda ids: ids.with_groups(tuple(groups)))
