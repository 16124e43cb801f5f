"""Reading a file of lines that its writer rotates: from the oldest line that is kept, without a gap, beyond its end.

`journal.jsonl` is what is written to. When it is large enough it is renamed `journal.jsonl.<n>` and begun anew, and the
new one's first line says its number: so a reader that has one segment finds the next, however many renames it slept
through. `store.rotation` does the renaming.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CHUNK_BYTES = 1 << 16
_HEAD = b'{"segment":'
_HEAD_BYTES = 64
_TRIES = 100


def head(number: int) -> bytes:
    """The first line of segment `number`; that of 0 has none."""
    return _HEAD + b"%d}\n" % number


def number_of(fd: int) -> int:
    """Which segment an open file is."""
    start = os.pread(fd, _HEAD_BYTES, 0)
    try:
        return int(start[len(_HEAD) : start.index(b"}")]) if start.startswith(_HEAD) else 0
    except ValueError:
        return 0


def numbers(directory: int | Path | str, name: str) -> list[int]:
    """The segments that are no longer written to, oldest first."""
    rest = (each[len(name) + 1 :] for each in os.listdir(directory) if each.startswith(f"{name}."))
    return sorted(int(each) for each in rest if each.isdecimal())


class Reader:
    """One who reads such a file. Holds the directory open: what is read goes on also when that loses its name."""

    def __init__(self, path: Path, *, from_now: bool = False) -> None:
        """`from_now`: only what is written from now on. Raises FileNotFoundError if there is no such directory."""
        self.missed = 0
        """How many segments were gone before they could be read."""
        self._name = path.name
        self._fd = self._directory = -1
        self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._number = -1
        try:
            if from_now:
                self._fd = self._opened(self._name)
                if self._fd >= 0:
                    self._number = number_of(self._fd)
                    os.lseek(self._fd, 0, os.SEEK_END)
            else:
                self._advance()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for fd in (self._fd, self._directory):
            if fd >= 0:
                os.close(fd)
        self._fd = self._directory = -1

    def __del__(self) -> None:
        self.close()

    def chunk(self) -> bytes:
        """What comes next; b"" if there is nothing now."""
        while self._fd >= 0 or self._advance():
            if data := os.read(self._fd, _CHUNK_BYTES):
                return data
            if self._is_current():
                return b""
            # Its last line came before it was renamed, perhaps after we looked.
            if data := os.read(self._fd, _CHUNK_BYTES):
                return data
            if not self._advance():
                return b""
        return b""

    def chunks(self) -> Iterator[bytes]:
        """All that is there now."""
        while data := self.chunk():
            yield data

    def _is_current(self) -> bool:
        try:
            there = os.stat(self._name, dir_fd=self._directory)
        except FileNotFoundError:
            # Between two names, or removed with everything.
            return True
        return os.path.samestat(there, os.fstat(self._fd))

    def _advance(self) -> bool:
        """Go on with the next segment; False if it is not there yet."""
        wanted = self._number + 1
        for _ in range(_TRIES):
            # Asked before the others are listed: what came before it has been put aside by then, or removed.
            newest = self._newest()
            aside = [
                each for each in numbers(self._directory, self._name) if each >= wanted and not 0 <= newest <= each
            ]
            found = aside[0] if aside else newest
            if found < wanted:
                return False
            fd = self._opened(f"{self._name}.{found}" if aside else self._name)
            if fd >= 0 and (aside or number_of(fd) == found):
                if self._number >= 0:
                    self.missed += found - wanted
                if self._fd >= 0:
                    os.close(self._fd)
                self._fd, self._number = fd, found
                return True
            # It was removed or put aside while we looked.
            if fd >= 0:
                os.close(fd)
        return False

    def _newest(self) -> int:
        """The number of the one that is written to; -1 if there is none."""
        fd = self._opened(self._name)
        if fd < 0:
            return -1
        try:
            return number_of(fd)
        finally:
            os.close(fd)

    def _opened(self, name: str) -> int:
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return -1
