"""Directories that RUN --mount=type=cache keeps between builds: named by what asks for them, in no layer ever.

Several steps may use one at a time, or one step after the other (`locked`), or each one of its own (`private`).
In use means *holds the lock*. They may be lost like the rest of the build cache: they age, and are removed unused.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Literal

from nbcontain.oci.digest import Digest
from nbcontain.store import files, removal
from nbcontain.store.layout import Layout

Sharing = Literal["shared", "private", "locked"]
_WAIT_S = 0.05


class CacheMounts:
    """The directories of one store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @contextmanager
    def held(
        self, name: Digest, sharing: Sharing, prepare: Callable[[Path], None], waiting: Callable[[], None]
    ) -> Iterator[Path]:
        """The directory of that name, this step's as `sharing` says until the end.

        A new one is empty, and `prepare` makes it what it has to be. `waiting` is called again and again while another
        step has it; what it raises ends the wait.
        """
        for number in count() if sharing == "private" else (0,):
            directory = self._layout.cache_mount(name, number)
            files.make_directory(directory)
            fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _locked(fd, fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX):
                    if sharing == "private":
                        continue
                    while not _locked(fd, fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX):
                        waiting()
                        time.sleep(_WAIT_S)
                os.utime(directory)
                yield _prepared(directory, prepare)
                return
            finally:
                os.close(fd)

    def walk(self) -> Iterator[tuple[Path, float]]:
        """Every directory, and when it was last used, in seconds since the epoch."""
        try:
            names = sorted(os.listdir(self._layout.cache_mounts))
        except FileNotFoundError:
            return
        for each in names:
            path = self._layout.cache_mounts / each
            yield path, path.stat().st_mtime


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepared(directory: Path, prepare: Callable[[Path], None]) -> Path:
    """The files' directory, made by whoever comes first; what a crash left half made is made anew."""
    ready, place = directory / "ready", directory / "fs"
    if not ready.exists():
        with files.lock(directory / "making", exclusive=True):
            if not ready.exists():
                if place.exists():
                    removal.remove_tree(place)
                files.make_new_directory(place, 0o755)
                prepare(place)
                files.write_new(ready, b"")
    return place
