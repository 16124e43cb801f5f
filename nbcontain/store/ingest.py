"""Blobs that come in piece by piece: what was there when somebody stopped is gone on with by the next."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from nbcontain.errors import DigestMismatch
from nbcontain.oci.image import Descriptor
from nbcontain.store import files
from nbcontain.store.blobs import WriteOut
from nbcontain.store.layout import Layout
from nbcontain.store.write_back import SYNCED_MODE, WriteBack

KEPT_S = 7 * 86400.0
_READ_BYTES = 1 << 20
_POLL_S = 0.05


class Partial:
    """A blob on its way, in a file that outlives its maker. What is in it is trusted once it was hashed again."""

    def __init__(self, layout: Layout, write_back: WriteBack, descriptor: Descriptor, fd: int) -> None:
        self._layout, self._write_back, self._descriptor, self._fd = layout, write_back, descriptor, fd
        self._is_later = write_back.begin()
        self.path = layout.partial(descriptor.digest)
        import hashlib

        self._sum = hashlib.new(descriptor.digest.algorithm)
        self._early = WriteOut(fd)
        self.size = 0

    def recall(self) -> None:
        """Hash what an earlier attempt left."""
        if os.fstat(self._fd).st_size > self._descriptor.size:
            os.ftruncate(self._fd, 0)
        while data := os.pread(self._fd, _READ_BYTES, self.size):
            self._take(data)

    def write(self, data: bytes) -> None:
        """Add some more. Raises DigestMismatch if that is more than the descriptor promised, DiskFull, DiskFailed."""
        if self.size + len(data) > self._descriptor.size:
            self.forget()
            raise DigestMismatch(f"{self._descriptor.size} bytes for {self._descriptor.digest.short}", "more")
        # Told here: whoever receives it takes any other OSError for the connection's.
        with files.disk(self._layout.root):
            os.lseek(self._fd, self.size, os.SEEK_SET)
            files.write(self._fd, data)
        self._take(data)
        if not self._is_later:
            self._early.reached(self.size)

    def _take(self, data: bytes) -> None:
        self._sum.update(data)
        self.size += len(data)

    def forget(self) -> None:
        """Start over: what is there is not to be trusted."""
        os.ftruncate(self._fd, 0)
        import hashlib

        self._sum = hashlib.new(self._descriptor.digest.algorithm)
        self._early = WriteOut(self._fd)
        self.size = 0

    def commit(self) -> None:
        """Give it its name, synced or with a sync to follow.

        Raises DigestMismatch, and forgets it, if it is not what was promised.
        """
        digest = self._descriptor.digest
        if self.size != self._descriptor.size or self._sum.hexdigest() != digest.hex:
            found = f"{digest.algorithm}:{self._sum.hexdigest()} of {self.size} bytes"
            self.forget()
            raise DigestMismatch(f"{digest} of {self._descriptor.size} bytes", found)
        target = self._layout.blob(digest)
        files.make_directory(target.parent, durable=not self._is_later)
        if self._is_later:
            files.publish(self.path, target, durable=False)
            self._write_back.published()
            return
        files.sync_file(self._fd)
        files.publish(self.path, target)
        # Not before: whoever goes on with what a dead process left must be able to write to it.
        os.fchmod(self._fd, SYNCED_MODE)


class InMemory:
    """A small blob on its way that is kept nowhere, with the face of a `Partial`."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._data = bytearray()

    @property
    def size(self) -> int:
        return len(self._data)

    def write(self, data: bytes) -> None:
        """Add some more. Raises DigestMismatch if that is more than the descriptor promised."""
        if self.size + len(data) > self._descriptor.size:
            raise DigestMismatch(f"{self._descriptor.size} bytes for {self._descriptor.digest.short}", "more")
        self._data += data

    def forget(self) -> None:
        """Start over."""
        self._data.clear()

    def whole(self) -> bytes:
        """All of it. Raises DigestMismatch if it is not what was promised."""
        data = bytes(self._data)
        self._descriptor.digest.verify(data)
        return data


@contextmanager
def arriving(
    layout: Layout, write_back: WriteBack, descriptor: Descriptor, waiting: Callable[[int], None]
) -> Iterator[Partial | None]:
    """The one place where this blob is written, held by this caller alone; None once the blob is there.

    Whoever comes second waits, is told the other's progress by `waiting`, and takes over if the other dies. What is
    damaged stays until `commit` puts the whole blob in its place. Raises DigestMismatch if the blob has another size.
    """
    path = layout.partial(descriptor.digest)
    files.make_directory(layout.ingest, durable=False)
    with files.disk(layout.root):
        while True:
            if _is_there(layout, descriptor):
                yield None
                return
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                size = os.fstat(fd).st_size
                os.close(fd)
                waiting(size)
                time.sleep(_POLL_S)
                continue
            try:
                # It may have become the blob, or been swept, between open and lock.
                if not _is_named(fd, layout, descriptor) or _is_there(layout, descriptor):
                    continue
                _check_size(layout, descriptor)
                yield Partial(layout, write_back, descriptor, fd)
                return
            finally:
                os.close(fd)


def sweep(layout: Layout) -> int:
    """Remove what nobody went on with for a week; the bytes that it held. For gc."""
    freed = 0
    with suppress(FileNotFoundError):
        for name in os.listdir(layout.ingest):
            path = layout.ingest / name
            with suppress(OSError):
                status = os.lstat(path)
                if time.time() - status.st_mtime > KEPT_S and (fd := files.try_lock(path)) is not None:
                    files.unlink(path)
                    os.close(fd)
                    freed += status.st_size
    return freed


def _is_there(layout: Layout, descriptor: Descriptor) -> bool:
    try:
        return os.stat(layout.blob(descriptor.digest)).st_size == descriptor.size
    except FileNotFoundError:
        return False


def _check_size(layout: Layout, descriptor: Descriptor) -> None:
    """Of a file that is here in another size: it is damaged, or it is right and the descriptor lies, which is an error.

    Of the right size is what somebody published a moment ago: to write it once more does no harm.
    """
    import hashlib

    digest = descriptor.digest
    with suppress(FileNotFoundError), layout.blob(digest).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != descriptor.size and hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.hex:
            raise DigestMismatch(
                f"{descriptor.size} bytes for {digest.short}", f"{size}",
                why=f"the manifest gives it {descriptor.size} bytes, and it has {size}: the blob is here, and whole",
                hint="the manifest is wrong: ask whoever made the image",
            )  # fmt: skip


def _is_named(fd: int, layout: Layout, descriptor: Descriptor) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(layout.partial(descriptor.digest)))
    except FileNotFoundError:
        return False
