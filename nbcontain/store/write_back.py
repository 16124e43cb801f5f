"""Blobs and the list of images on their way to the disk: there for everybody at once, on the disk a moment later.

Nobody waits for the disk where it is this machine's own: a thread syncs what was published, blobs first, then
index.json. A blob that has been synced is marked by its mode, which says that nobody may write to it. In the boot in
which it was published, all of it holds, as memory does not forget. For the next one there is the *record*, on the disk
before anything is published unsynced: in which boot that was, and the last index.json of which every blob had been
synced. Whoever opens the store in another boot goes by it first (`recovery`): a blob without a mark is there only if
its bytes are those of its name, and a name whose image did not come through is what it was in that index.

So a power cut takes back at most the last moments, as if they had not been. Three rules make that so:

- A mark is set on the very inode that was synced, by its descriptor.
- The record's index is replaced only by one that is on the disk with all its blobs, and loses at once what is removed:
  a name that was taken away stays so. What it names is not collected: gc first has it catch up.
- The record stays for the whole boot, so that nobody has to ask whether it still is there.

On file systems of a network, where a write may fail as late as it is synced, and where no boot has a name, everything
is synced before it has its name; also by a process one of whose syncs has failed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from nbcontain.errors import DiskFailed, StoreError
from nbcontain.linux import boot
from nbcontain.store import files
from nbcontain.store.layout import INDEX_LIMIT, Layout

OF_THIS_MACHINE = frozenset({
    0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E, 0x858458F6,
})  # fmt: skip
"""ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS, bcachefs, ramfs: room for what is written is found at once."""
SYNCED_MODE = 0o444
"""A blob's, once it is on the disk; before, its owner may write to it."""
_TOGETHER_S = 1.0
"""So long after the first, what is published meanwhile is synced with it; and who publishes it does not wait for what
the disk is busy with."""
_AT_ONCE = 32
"""So many blobs are open at the same time."""
_RECORD_LIMIT = INDEX_LIMIT + 128


class WriteBack:
    """What of one store has still to be synced. Safe among threads and processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self.is_waiting = False
        """Whether this process published what it has not begun to sync."""
        self._writer: threading.Thread | None = None
        self._is_closing = threading.Event()
        self.has_begun = False
        """Whether this process publishes what is not synced yet, and says so by `published`."""
        self._is_decided = False
        self._failure: Exception | None = None

    def begin(self) -> bool:
        """Decide, once for the process, whether it may publish what is not synced yet; see `has_begun`.

        The caller does not hold the lock of index.json. Raises DiskFailed once after what waited could not be synced.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise DiskFailed(
                f"the disk under {self._layout.root} fails",
                why=f"what was stored before could not be written out: {getattr(failure, 'why', '') or failure}",
                hint="nbcontain system check --full",
            ) from failure
        if not self._is_decided:
            self.has_begun = self._is_recorded()
            self._is_decided = True
        return self.has_begun

    def published(self) -> None:
        """A blob, or index.json, has its name, and is not synced."""
        with self._lock:
            self.is_waiting = True
            if self._writer is None:
                self._writer = threading.Thread(target=self._run, name="nbcontain write-back", daemon=True)
                self._writer.start()

    def lose(self, without: Callable[[bytes], bytes]) -> None:
        """Have the record's index lose what index.json has lost. The caller holds the lock of index.json."""
        old = recorded_index(self._layout)
        if old is not None and (new := without(old)) != old:
            self._record(new)

    def settle(self) -> None:
        """Sync all that is not marked, whoever published it, and have the record say so. Raises DiskFailed, DiskFull.

        The caller does not hold the lock of index.json.
        """
        with self._lock:
            self.is_waiting = False
        if recorded_index(self._layout) is None:
            return
        while True:
            # All that it names has been published before it.
            index = self._index()
            self._sync(unmarked(self._layout))
            with files.lock(self._layout.index_lock, exclusive=True):
                if self._index() == index:
                    if recorded_index(self._layout) != index:
                        self._sync_index()
                        self._record(index)
                    return

    def close(self) -> None:
        """Nothing is synced from here on, until more is published; waits for what is being synced.

        What still waited has no mark: the kernel writes it out when it likes, and the next process that publishes
        something marks it.
        """
        self._is_closing.set()
        with self._lock:
            self.is_waiting = False
            writer = self._writer
        if writer is not None:
            writer.join()
        self._is_closing.clear()

    # --- syncing ---

    def _is_recorded(self) -> bool:
        """Whether the record is there, and on the disk: it is made if it can be."""
        this = boot.boot_id()
        if not this or not _is_of_this_machine(self._layout.root):
            return False
        with files.lock(self._layout.index_lock, exclusive=True):
            if recorded_boot(self._layout) != this:
                self._record(self._index())
        return True

    def _record(self, index: bytes) -> None:
        files.replace(self._layout.unsettled, boot.boot_id().encode() + b"\n" + index)

    def _index(self) -> bytes:
        """What index.json says now; nothing where there is none."""
        try:
            return files.read(self._layout.index, INDEX_LIMIT)
        except FileNotFoundError:
            return b""

    def _run(self) -> None:
        while True:
            self._is_closing.wait(_TOGETHER_S)
            with self._lock:
                if not self.is_waiting:
                    self._writer = None
                    return
            try:
                self.settle()
            except (OSError, StoreError) as error:
                # To try again would succeed, and say nothing: the kernel tells of a failed write once (fsync(2)).
                self._failure, self.has_begun = error, False

    def _sync(self, paths: Sequence[Path]) -> None:
        """Sync these blobs and their names, and mark them."""
        with files.disk(self._layout.root):
            for first in range(0, len(paths), _AT_ONCE):
                self._sync_some(paths[first : first + _AT_ONCE])
            # Where they are and where they come from: a rename is a change of both.
            places = dict.fromkeys(path.parent for path in paths)
            for directory in (*places, *((self._layout.blobs, self._layout.tmp, self._layout.ingest) if paths else ())):
                with suppress(FileNotFoundError):
                    files.sync_directory(directory)

    def _sync_some(self, paths: Sequence[Path]) -> None:
        with ExitStack() as opened:
            fds = []
            for path in paths:
                # What gc was quicker with is no longer to be synced.
                with suppress(FileNotFoundError):
                    fds.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
                    opened.callback(os.close, fds[-1])
            for fd in fds:
                files.begin_writing_out(fd, 0, 0)
            for fd in fds:
                files.sync_file(fd)
                os.fchmod(fd, SYNCED_MODE)

    def _sync_index(self) -> None:
        with files.disk(self._layout.oci):
            fd = os.open(self._layout.index, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                files.sync_file(fd)
            finally:
                os.close(fd)
            files.sync_directory(self._layout.oci)


def recorded_boot(layout: Layout) -> str:
    """In which boot something was published before it was synced; "" if all had been when the store was last opened."""
    try:
        with open(layout.unsettled, "rb") as record:
            return record.readline(128).decode("ascii", "replace").rstrip("\n")
    except FileNotFoundError:
        return ""


def recorded_index(layout: Layout) -> bytes | None:
    """The last index.json of which every blob had been synced; None if there is no record, or it was damaged."""
    try:
        return files.read(layout.unsettled, _RECORD_LIMIT).partition(b"\n")[2]
    except (FileNotFoundError, StoreError):
        return None


def unmarked(layout: Layout) -> list[Path]:
    """The blobs that are not known to be on the disk."""
    found = []
    for directory in os.scandir(layout.blobs):
        for entry in os.scandir(directory.path):
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mode & 0o222:
                    found.append(Path(entry.path))
    return found


def _is_of_this_machine(root: Path) -> bool:
    """Whether a write there that was taken finds its room, and only a broken disk can lose it."""
    from nbcontain.linux import syscalls

    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.file_system_type(fd) in OF_THIS_MACHINE
    except OSError:
        return False
    finally:
        os.close(fd)
