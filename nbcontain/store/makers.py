"""Who has written to a tree, where the disk says the same of everything: noted while programs run, and read afterwards.

Where there is one id only, a program of another user's than root makes files that are root's for the kernel
(`owners`). So it is noted who such programs were, and since when; before the owners of what they wrote to are read,
each new file that nobody was named for is given to whom it must be (`new_owners`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial

from nbcontain.errors import StoreError
from nbcontain.store import files

_MOST = 256
"""So many users one container's programs may be; what those that follow make is not told apart."""
_COARSE = 5
"""CLOCK_REALTIME_COARSE: the one by which file systems say when a file was made."""
_LONGEST_S = 0.2


class Notes:
    """Of one program and its children: who they are is noted, as soon as one of the container's is not root."""

    def __init__(
        self, write: Callable[[bytes], object], first: tuple[int, int], *, is_first: bool, is_empty: bool
    ) -> None:
        """`first` is who the program begins as; whether it `is_first` in the container; and nobody was noted so far."""
        self._write = write
        self._first = first
        self.makers = Makers()
        if first[0] and is_empty and not is_first:
            self._add(0, 0, 0)
        if first[0] or not is_empty:
            self._add(*first, moment())

    @classmethod
    def to(cls, fd: int, first: tuple[int, int], *, is_first: bool) -> Notes:
        """Those that are added to an open file; kept nowhere if it is -1."""
        if fd < 0:
            return cls(lambda line: None, first, is_first=is_first, is_empty=True)
        return cls(partial(files.write, fd), first, is_first=is_first, is_empty=not os.fstat(fd).st_size)

    def note(self, uid: int, gid: int) -> None:
        """One of the processes is about to be that one, who is not root."""
        if self.makers.has(uid, gid) or len(self.makers) >= _MOST:
            return
        if not self.makers.has(*self._first):
            self._add(*self._first, 0)
        self._add(uid, gid, moment())

    def _add(self, uid: int, gid: int, since_ns: int) -> None:
        self.makers.add(uid, gid, since_ns)
        self._write(json.dumps([uid, gid, since_ns]).encode() + b"\n")


def moment() -> int:
    """Now, in ns, as file systems count: later than of all that is made by now. Waits for it, two ticks at most.

    What is made may have the finer time since Linux 6.13, and the coarse one goes on in whole ticks: where one comes
    late, its time may be before that of what was made meanwhile.
    """
    begun = time.clock_gettime_ns(time.CLOCK_REALTIME)
    # Should somebody set the clock back just now, it is not waited for.
    until = time.monotonic() + _LONGEST_S
    while (now := time.clock_gettime_ns(_COARSE)) <= begun and time.monotonic() < until:
        time.sleep(0.0005)
    return now


class Makers:
    """All that are known of one tree, and since when each was there."""

    def __init__(self) -> None:
        self._since_ns: dict[tuple[int, int], int] = {}

    @classmethod
    def of_lines(cls, lines: bytes) -> Makers:
        """Those that `Notes` wrote, of one run and of others. Raises StoreError for what is no list of them."""
        makers = cls()
        for each in lines.splitlines():
            try:
                uid, gid, since_ns = json.loads(each)
                if not all(type(number) is int and number >= 0 for number in (uid, gid, since_ns)):
                    raise ValueError("no numbers")
            except (ValueError, TypeError, RecursionError) as error:
                raise StoreError("the list of who has made files is damaged", why=str(error)) from error
            makers.add(uid, gid, since_ns)
        return makers

    def __len__(self) -> int:
        return len(self._since_ns)

    def has(self, uid: int, gid: int) -> bool:
        """Whether that one is among them."""
        return (uid, gid) in self._since_ns

    def add(self, uid: int, gid: int, since_ns: int) -> None:
        """One more; who is among them was there from the earlier time on."""
        self._since_ns[uid, gid] = min(since_ns, self._since_ns.get((uid, gid), since_ns))

    @property
    def since_ns(self) -> int:
        """Before that there was nobody but root."""
        return min((since_ns for (uid, _), since_ns in self._since_ns.items() if uid), default=1 << 63)

    def of(self, born_ns: int, above: tuple[int, int], *, hands_on: bool) -> tuple[int, int]:
        """Who made what was made then, in a directory of `above`'s, which `hands_on` its group (its setgid bit).

        Of several it is whose directory it is: elsewhere only root may, as a rule, and who made something where
        everybody may is not to be known.
        """
        there = [(since_ns, ids) for ids, since_ns in self._since_ns.items() if since_ns <= born_ns]
        users = [uid for _, (uid, _) in there]
        if len({*users}) > 1:
            wanted = above[0] if above[0] in users else 0 if 0 in users else users[0]
            there = [each for each in there if each[1][0] == wanted]
        uid, gid = max(there)[1] if there else (0, 0)
        return uid, above[1] if hands_on else gid
