"""Committed snapshots on their way to the disk: usable at once, written out in the background.

A snapshot can be made again from its layer's blob, which is synced before anything names it. So nobody waits until
its thousands of files are written out. Until then it says in which boot it was made (`boot`), and holds in that
boot only; once syncfs(2) has returned, it is marked (`synced`) and holds for good. After a power cut, one without
that mark is as good as not there, whatever became of its files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.host import boot_id
from nbcontain.store import files
from nbcontain.store.layout import Shelf

_BOOT, _SYNCED = "boot", "synced"
_TOGETHER_S = 0.05
"""So long after the first, what is published meanwhile is written out with it."""


class Settling:
    """Which snapshots of one shelf hold, and what has still to be written out. Safe among threads and processes."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._lock = threading.Lock()
        self._waiting: set[Path] = set()
        self._is_running = False

    def is_sound(self, directory: Path) -> bool:
        """Whether a committed snapshot is there and holds."""
        if (directory / _SYNCED).exists():
            return True
        try:
            text = files.read(directory / _BOOT, 128)
        except (OSError, StoreError):
            return False
        boot = boot_id()
        return bool(boot) and text == boot.encode()

    def publish(self, directory: Path, target: Path) -> bool:
        """Give a finished directory its name; False if a twin that holds has it already. It is written out later."""
        boot = boot_id()
        if not boot:
            # Nobody can say after a restart what was written out before: so it is now.
            files.sync_filesystem(directory)
            files.write_new(directory / _SYNCED, b"")
            return files.publish(directory, target)
        files.write_new(directory / _BOOT, boot.encode())
        try:
            files.move(directory, target)
        except FileExistsError:
            return False
        except OSError as error:
            if not target.is_dir():
                raise error
            return False
        with self._lock:
            self._waiting.add(target)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="nbcontain sync", daemon=True).start()
        return True

    def settle(self, directories: Iterable[Path]) -> None:
        """Have these written out now, for what is to hold after a power cut stands on them."""
        directories = list(directories)
        waiting = [each for each in directories if not (each / _SYNCED).exists()]
        if waiting:
            files.sync_filesystem(self._shelf.root)
            for each in waiting:
                self._mark(each)
        for each in directories:
            files.sync_directory(each)
        if directories:
            files.sync_directory(self._shelf.root)

    def _run(self) -> None:
        while True:
            time.sleep(_TOGETHER_S)
            with self._lock:
                waiting, self._waiting = self._waiting, set()
                if not waiting:
                    self._is_running = False
                    return
            # A disk that fails now leaves them unmarked: they are made again after the next boot.
            with suppress(OSError, StoreError):
                files.sync_filesystem(self._shelf.root)
                for each in waiting:
                    self._mark(each)

    def _mark(self, directory: Path) -> None:
        # Only what was made in this boot was written out by this sync, as it was made.
        if not self.is_sound(directory):
            return
        with suppress(FileExistsError, FileNotFoundError):
            files.write_new(directory / _SYNCED, b"")
