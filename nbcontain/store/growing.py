"""A file that one thread writes and another reads as far as it has come.

Between the two is as much room as on the disk: whoever writes never waits, and is done as soon as it can be.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class Growing:
    """One file's bytes, for one thread. A context for whoever writes: what is not there at its end will not come."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._changed = threading.Condition()
        self._size = self._at = 0
        self._is_over = False
        self.is_cut = False

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wrote(self, data: bytes | memoryview) -> None:
        """The file holds these bytes now, behind the others."""
        with self._changed:
            self._size += len(data)
            self._changed.notify()

    def end(self) -> None:
        """That was all. Idempotent."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def cut(self) -> None:
        """Nobody wants the rest, or it is written anew: as if the file ended where it is read. Idempotent."""
        with self._changed:
            self._is_over = self.is_cut = True
            self._changed.notify()

    def readinto(self, buffer: memoryview, /) -> int:
        """Some more, for the one who reads, who waits for it; 0 at the end, and where the file was cut off."""
        with self._changed:
            while self._at == self._size and not self._is_over:
                self._changed.wait()
            there = 0 if self.is_cut else self._size - self._at
        count = os.preadv(self._fd, [buffer[:there]], self._at) if there else 0
        self._at += count
        return count

    def close(self) -> None:
        """Nobody reads any more."""
        os.close(self._fd)
