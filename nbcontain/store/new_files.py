"""Files on their way to the disk: made one after the other, then written, dated and closed together.

Not for what is to be done, which is the same, but for the processor: a system call leaves little of its caches to
whoever made it, and Python's own part of a file, or the kernel's of another call, is slow in cold ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from nbcontain.store import files, tar
from nbcontain.store.metadata import Metadata
from nbcontain.store.open_directories import open_at_a_time

Data = memoryview | tar.Reader
Plain = Callable[[tar.Reader, list["tuple[tar.Entry, memoryview]"], Callable[[], None]], None]
_NewFile = tuple[int, Data, bytes, bytes, tar.Entry]
_MANY = 64
"""So many are open at a time, where a process may have more."""


def in_batches(
    stream: tar.Readable | tar.Pieces, limits: tar.Limits, each: Callable[[tar.Entry], None],
    make: Callable[[tar.Entry, Data], None], finish: Callable[[], None], *, hashes: bool, plain: Plain | None = None,
) -> tar.Reader:  # fmt: skip
    """Read an archive to its last member: `each` is given every entry, then `make` those that a piece of it held.

    `finish` is called when what `make` got is about to be gone. `plain` is asked before each whether it makes that and
    more by itself, and given what would have to be made before, and how. Raises what they raise, and BadArchive.
    """
    members: list[tuple[tar.Entry, memoryview]] = []

    def leave() -> None:
        for entry, data in members:
            make(entry, data)
        members.clear()
        finish()

    reader = tar.Reader(stream, limits, hashes=hashes, leaving=leave)
    while True:
        if plain is not None:
            plain(reader, members, leave)
        entry = reader.next()
        if entry is None:
            break
        each(entry)
        if (data := reader.whole()) is not None:
            members.append((entry, data))
        else:
            leave()
            make(entry, reader)
            finish()
    leave()
    return reader


class NewFiles:
    """Those of one tree that are not finished."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._open: list[_NewFile] = []
        self._many = open_at_a_time(_MANY)

    def take(self, fd: int, data: Data, path: bytes, leaf: bytes, entry: tar.Entry) -> None:
        """Have this data in it, which stays as it is until the next `finish`, and what the entry says of it."""
        self._open.append((fd, data, path, leaf, entry))
        if len(self._open) >= self._many:
            self.finish()

    def finish(self) -> None:
        """All of them are on the disk as they will be. Raises OSError; BadArchive if the archive ends inside of one."""
        opened, self._open = self._open, []
        try:
            for fd, data, *_ in opened:
                if isinstance(data, tar.Reader):
                    data.copy_to(fd)
                elif data:
                    files.write(fd, data)
            settle = self._metadata.set
            for fd, _, path, leaf, entry in opened:
                settle(fd, path, leaf, entry)
        finally:
            _close(opened)

    def close(self) -> None:
        """Nothing more is done with them. Idempotent."""
        opened, self._open = self._open, []
        _close(opened)


def _close(opened: list[_NewFile]) -> None:
    for fd, *_ in opened:
        os.close(fd)
