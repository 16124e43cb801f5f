"""Committed snapshots on their way to the disk: usable at once, written out in the background.

A snapshot can be made again from its layer's blob, which is synced before anything names it. So nobody waits until
its thousands of files are written out. Until then it says in which boot it was made (`boot`), and holds in that
boot only; once syncfs(2) has returned, it is marked (`synced`) and holds for good. After a power cut, one without
that mark is as good as not there, whatever became of its files.

The mark is set on the very directory that was written out, which an open descriptor names: meanwhile another may have
taken its place. The descriptor is from before the files were written, where that can be, since syncfs tells of a write
that failed only those who had something open before it did.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.linux import boot
from nbcontain.store import files
from nbcontain.store.layout import Shelf
from nbcontain.values import dataclass

_BOOT, _SYNCED = "boot", "synced"
_TOGETHER_S = 1.0
"""So long after the first, what is published meanwhile is written out with it."""
_MANY = 16
"""More than these are not kept open, waiting: then whoever publishes writes out."""


@dataclass(frozen=True, slots=True)
class Witness:
    """An open directory that becomes a snapshot; tells of every write that failed since it was opened."""

    fd: int
    opened_at: float

    @classmethod
    def of(cls, directory: Path) -> Witness:
        """Open this directory. Whoever is handed a witness closes it."""
        return cls(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), time.monotonic())

    def close(self) -> None:
        os.close(self.fd)


class Settling:
    """Which snapshots of one shelf hold, and what has still to be written out. Safe among threads and processes."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._lock = threading.Lock()
        self._waiting: dict[Path, Witness] = {}
        self._writer: threading.Thread | None = None
        self._is_closing = threading.Event()

    def is_sound(self, directory: Path) -> bool:
        """Whether a committed snapshot is there and holds, for itself: nothing is said of what it lies on."""
        if os.path.exists(f"{directory}/{_SYNCED}"):
            return True
        try:
            text = files.read(f"{directory}/{_BOOT}", 128)
        except (OSError, StoreError):
            return False
        this = boot.boot_id()
        return bool(this) and text == this.encode()

    def publish(self, directory: Path, target: Path, witness: Witness | None = None) -> bool:
        """Give a finished directory its name; False if a twin that holds has it already. It is written out later."""
        witness = witness or Witness.of(directory)
        try:
            this = boot.boot_id()
            if not this:
                # Nobody can say after a restart what was written out before: so it is now.
                files.sync_filesystem_of(witness.fd, directory)
                files.write_new(directory / _SYNCED, b"")
                return files.publish(directory, target)
            files.write_new(directory / _BOOT, this.encode())
            try:
                files.move(directory, target)
            except OSError:
                if not self.is_sound(target):
                    raise
                return False
            self._await(target, witness)
            witness = None
        finally:
            if witness is not None:
                witness.close()
        return True

    def settle(self, directories: Iterable[Path]) -> None:
        """Have these written out now, for what is to hold after a power cut stands on them.

        The caller holds the store's lock, so that nobody removes them.
        """
        directories = list(directories)
        waiting = [each for each in directories if not (each / _SYNCED).exists() and self.is_sound(each)]
        for first in range(0, len(waiting), _MANY):
            opened: dict[Path, Witness] = {}
            try:
                for each in waiting[first : first + _MANY]:
                    opened[each] = Witness.of(each)
                self._write_out(opened)
            finally:
                for witness in opened.values():
                    witness.close()
        for each in directories:
            files.sync_directory(each)
        if directories:
            files.sync_directory(self._shelf.root)

    def close(self) -> None:
        """Nothing is written from here on, until something more is published; waits for what is being written.

        What still waited is not written out: it holds in this boot, and is made again in the next one.
        """
        self._is_closing.set()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            writer = self._writer
        for witness in waiting.values():
            witness.close()
        if writer is not None:
            writer.join()
        self._is_closing.clear()

    def is_still(self, directory: Path, fd: int) -> bool:
        """Whether that name is still the open directory's."""
        try:
            return os.path.samestat(os.stat(directory, follow_symlinks=False), os.fstat(fd))
        except FileNotFoundError:
            return False

    # --- writing out ---

    def _await(self, target: Path, witness: Witness) -> None:
        with self._lock:
            old = self._waiting.pop(target, None)
            self._waiting[target] = witness
            is_many = len(self._waiting) > _MANY
            if self._writer is None and not is_many:
                writer = threading.Thread(target=self._run, name="nbcontain sync", daemon=True)
                writer.start()
                self._writer = writer
        if old is not None:
            old.close()
        if is_many:
            self._write_out_what_waits()

    def _run(self) -> None:
        while True:
            self._is_closing.wait(_TOGETHER_S)
            with self._lock:
                if not self._waiting:
                    self._writer = None
                    return
            self._write_out_what_waits()

    def _write_out_what_waits(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        try:
            # A disk that fails now leaves them unmarked: they are made again after the next boot.
            with suppress(OSError, StoreError):
                self._write_out(waiting)
        finally:
            for witness in waiting.values():
                witness.close()

    def _write_out(self, opened: dict[Path, Witness]) -> None:
        """Mark these, once all that was written into them is on the disk."""
        if not opened:
            return
        # The first that was opened tells of all that the others would.
        first = min(opened.values(), key=lambda each: each.opened_at)
        files.sync_filesystem_of(first.fd, self._shelf.root)
        with files.lock(self._shelf.lock, exclusive=True):
            for target, witness in opened.items():
                # One that was removed meanwhile, and made again by somebody else, was not written out by this.
                if self.is_still(target, witness.fd) and self.is_sound(target):
                    with suppress(FileExistsError):
                        files.write_new(target / _SYNCED, b"")
