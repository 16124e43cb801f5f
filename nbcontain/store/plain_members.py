"""The plain members of a layer, made by the processor's own code (tools/c/members.c): the same as Target makes of them.

A tree of small files is many calls of the kernel, each of which leaves Python cold caches: it takes three times as long
as the code that is here, and what unpacks a layer is what a load waits for.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache

from nbcontain.linux import code_memory, members_code
from nbcontain.linux.members_code import LINK_BYTES, NAME_BYTES, PLACES
from nbcontain.store import tar
from nbcontain.store.open_directories import Opened
from nbcontain.values import dataclass

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOM = 512
"""So many members are told of at once: as many as a slot of a ring has."""
_WORD_BYTES, _FD_BYTES = 8, 4
_COLUMNS = 5
# The words of its `struct run`, in their order.
(_AT, _END, _MEMBERS, _MOST, _WAITS, _KEEPS_OWNERS, _UID, _GID, _FLAGS, _COUNT, _KINDS, _NUMBERS, _NAMES, _LINKS,
 _NAMES_SIZE, _LINKS_SIZE, _SIZE_BYTES, _SLOT, _WORDS) = range(19)  # fmt: skip
_FDS_AT = _WORDS * _WORD_BYTES
_PLACES_AT = _FDS_AT + PLACES * _FD_BYTES
_PLACE_BYTES = _WORD_BYTES + NAME_BYTES
_OTHERS, _DIRECTORY, _WAIT = range(3)
_NOWHERE = b"\xff" * (PLACES * _FD_BYTES)
"""No directory is open: -1 for each."""
_Function = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Made:
    """Members that were made, one after the other."""

    names: bytes
    """Each with a zero byte behind it."""
    kinds: bytes
    columns: tuple[list[int], ...]
    """Modes, users, groups, sizes, times in ns."""
    links: bytes
    """Where the symlinks lead, each with a zero byte behind it."""
    size_bytes: int
    """Of all their data."""


class PlainMembers:
    """Makes those of one tree. Raises OSError where this processor's code is not known, or none can be made.

    `opened` gives the directory that is spelled so, or raises; `made` is told what was made, and before `opened` is
    asked if that `looks_back`.
    """

    def __init__(
        self, opened: Callable[[bytes], Opened], made: Callable[[Made], None], *, keeps_owners: bool,
        looks_back: bool = False,
    ) -> None:  # fmt: skip
        self._members = _function()
        self._opened = opened
        self._made = made
        self._looks_back = looks_back
        rooms = (_PLACES_AT + PLACES * _PLACE_BYTES, _ROOM, _ROOM * _COLUMNS * _WORD_BYTES,
                 _ROOM * (NAME_BYTES + 1), _ROOM * (LINK_BYTES + 1))  # fmt: skip
        # Of it the kernel gives what is written to.
        self._memory = (ctypes.c_char * sum(rooms))()
        self._place = ctypes.addressof(self._memory)
        self._view = memoryview(self._memory).cast("B")
        starts = [sum(rooms[:number]) for number in range(len(rooms) + 1)]
        self._words = self._view[:_FDS_AT].cast("q")
        self._fds = self._view[_FDS_AT:_PLACES_AT].cast("i")
        self._kinds, numbers, self._names, self._links = (
            self._view[start:end] for start, end in zip(starts[1:], starts[2:], strict=False)
        )
        numbers = numbers.cast("q")
        self._columns = [numbers[_ROOM * column : _ROOM * (column + 1)] for column in range(_COLUMNS)]
        self._words[_MEMBERS] = _ROOM
        self._words[_FLAGS] = _NEW_FILE
        self._words[_KEEPS_OWNERS] = keeps_owners
        for word, start in zip((_KINDS, _NUMBERS, _NAMES, _LINKS), starts[1:], strict=False):
            self._words[word] = self._place + start
        self._piece: memoryview | None = None
        self._piece_at = 0
        self.forget()

    def forget(self) -> None:
        """No directory is open any more. Before that, `tell` of what was made there."""
        self._view[_FDS_AT:_PLACES_AT] = _NOWHERE

    def take(
        self, reader: tar.Reader, own: tuple[int, int], before: Sequence[object], leave: Callable[[], None]
    ) -> None:  # fmt: skip
        """Make the next ones, for as long as they are plain; `leave` makes what is `before` them and not made yet.

        New files belong to `own`. What goes wrong with one is left to whoever makes the next, this one.
        """
        words = self._words
        words[_UID], words[_GID] = own
        while True:
            piece, start, end = reader.at_hand()
            if start >= end:
                break
            if piece is not self._piece:
                self._piece, self._piece_at = piece, code_memory.address(piece)
            at, known = self._piece_at + start, words[_COUNT]
            words[_AT], words[_END] = at, self._piece_at + end
            most = words[_MOST] = min(_ROOM, known + reader.left)
            words[_WAITS] = bool(before)
            why = self._members(self._place)
            count = words[_COUNT]
            reader.passed(words[_AT] - at, count - known)
            if why == _WAIT:
                leave()
            elif why == _DIRECTORY:
                self._find()
            elif count < most or not reader.left:
                break
            else:
                self.tell()
        self.tell()

    def tell(self) -> None:
        """Have `made` know of all."""
        words = self._words
        count = words[_COUNT]
        if not count:
            return
        *columns, times_s = [column[:count].tolist() for column in self._columns]
        made = Made(
            bytes(self._names[: words[_NAMES_SIZE]]), bytes(self._kinds[:count]),
            (*columns, [time_s * 1_000_000_000 for time_s in times_s]),
            bytes(self._links[: words[_LINKS_SIZE]]), words[_SIZE_BYTES],
        )  # fmt: skip
        words[_COUNT] = words[_NAMES_SIZE] = words[_LINKS_SIZE] = words[_SIZE_BYTES] = 0
        self._made(made)

    def _find(self) -> None:
        """Find the directory that it asks for."""
        slot = self._words[_SLOT]
        at = _PLACES_AT + slot * _PLACE_BYTES
        start = at + _WORD_BYTES
        size = int.from_bytes(self._view[at:start], "little")
        if self._looks_back:
            self.tell()
        # Before the slot is written to: with others this one may be forgotten meanwhile.
        fd, _ = self._opened(bytes(self._view[start : start + size]))
        self._fds[slot] = fd


@cache
def _function() -> Callable[[int], int]:
    """One for all that this process unpacks."""
    return _Function(code_memory.loaded(members_code.CODE))
