"""Content-addressed blobs: bytes named by their digest, in an OCI image layout (image-spec image-layout.md#blobs)."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from nbcontain.errors import BadDigest, DigestMismatch, StoreError
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor
from nbcontain.store import files, removal
from nbcontain.store.layout import Layout
from nbcontain.store.write_back import SYNCED_MODE, WriteBack

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


Document = tuple[bytes, str, Descriptor | None]
"""A small blob, its media type, and what it has to be."""
_OPEN = 64
"""Of blobs that are committed together so many stay open: their disk goes on with all while more is written."""
_WRITE_OUT_BYTES = 8 << 20
_BLOCK_BYTES, _BLOCKS = 2 << 20, 3
"""What a thread beside gets at once, and how many of these may wait for it."""


class Blobs:
    """The blobs of one store. They appear whole and verified, and never change; for the disk see `write_back`."""

    def __init__(self, layout: Layout, write_back: WriteBack) -> None:
        self._layout = layout
        self._write_back = write_back

    def put(self, chunks: Iterable[bytes], media_type: str, expected: Descriptor | None = None) -> Descriptor:
        """Store these bytes; idempotent. Raises DigestMismatch if they are not the expected ones, DiskFull."""
        with self.writer(_algorithm(expected)) as writer:
            for chunk in chunks:
                writer.write(chunk)
                if expected is not None and writer.size > expected.size:
                    raise DigestMismatch(f"{expected.size} bytes", "more")
            return writer.commit(media_type, expected)

    def put_together(self, documents: Iterable[Document]) -> list[Descriptor]:
        """Store several small blobs, in about the time that one waits for the disk, if any does; idempotent.

        The disk is told of all of them before any is waited for, and their names are synced together: a file system
        with a journal then writes that twice, and not twice for each. Raises like `put`.
        """
        with ExitStack() as stack:
            writers = []
            for data, media_type, expected in documents:
                writer = stack.enter_context(self.writer(_algorithm(expected)))
                writer.write(data)
                writer.begin_writing_out()
                writers.append((writer, media_type, expected))
            found = [writer.commit(media_type, expected, named=False) for writer, media_type, expected in writers]
            if not self._write_back.has_begun:
                for directory in dict.fromkeys([*(self.path(each.digest).parent for each in found), self._layout.tmp]):
                    files.sync_directory(directory)
        return found

    @contextmanager
    def writer(self, algorithm: str = "sha256") -> Iterator[BlobWriter]:
        """Something to write a blob to; what is not committed leaves nothing behind."""
        with files.disk(self._layout.root), files.temporary(self._layout.tmp) as (temp, fd):
            yield BlobWriter(self._layout, self._write_back, temp, fd, algorithm)

    @contextmanager
    def writers(self) -> Iterator[BlobWriters]:
        """Any number of them, one after the other, for who commits them together; what is not leaves nothing behind."""
        with files.disk(self._layout.root), files.temporary_directory(self._layout.tmp) as directory:
            writers = BlobWriters(self._layout, self._write_back, directory)
            try:
                yield writers
            finally:
                writers.close()
                removal.remove_tree(directory)

    def open(self, digest: Digest) -> VerifiedReader:
        """Read a blob; reading its end raises DigestMismatch if the bytes are not those of its name."""
        return VerifiedReader(self._opened(digest), digest)

    def open_beside(self, digest: Digest) -> ReaderBeside:
        """The same for who has enough to do with what is read: a thread hashes it meanwhile."""
        return ReaderBeside(self._opened(digest), digest)

    def opened(self, digest: Digest) -> BinaryIO:
        """The same without verifying, for who knows in another way that the bytes are right; unbuffered."""
        return cast(BinaryIO, os.fdopen(self._opened(digest), "rb", buffering=0))

    def _opened(self, digest: Digest) -> int:
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise StoreError(
                f"the blob {digest} is missing",
                hint="Build or import the image again: the store has lost a part of it.",
            ) from error

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob, whole and verified."""
        with self.opened(digest) as blob:
            data = blob.read(min(limit, os.fstat(blob.fileno()).st_size) + 1)
        if len(data) > limit:
            raise StoreError(f"the blob {digest} is larger than {limit} bytes")
        digest.verify(data)
        return data

    def exists(self, digest: Digest) -> bool:
        return self.path(digest).exists()

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there in the right size; its bytes are verified when it is read."""
        try:
            return os.stat(self.path(descriptor.digest)).st_size == descriptor.size
        except FileNotFoundError:
            return False

    def size(self, digest: Digest) -> int:
        return os.stat(self.path(digest)).st_size

    def path(self, digest: Digest) -> Path:
        return self._layout.blob(digest)

    def walk(self) -> Iterator[Digest]:
        """All there are, in no order; what is no blob is passed over."""
        for algorithm in sorted(os.listdir(self._layout.blobs)):
            for name in os.listdir(self._layout.blobs / algorithm):
                with suppress(BadDigest):
                    yield Digest.parse(f"{algorithm}:{name}")

    def remove(self, digest: Digest) -> None:
        """Idempotent; only for gc, which knows that nothing needs it."""
        files.unlink(self.path(digest))


class BlobWriters:
    """Blobs in the making in one directory, whose lock keeps sweepers from all of them: few need be open for that."""

    def __init__(self, layout: Layout, write_back: WriteBack, directory: Path) -> None:
        self._layout, self._write_back, self._directory = layout, write_back, directory
        self._count = 0
        self._open: list[int] = []

    def begin(self, algorithm: str) -> BlobWriter:
        """The next one. Of those before it, which are whole, most are closed: a process has a thousand descriptors."""
        path = self._directory / str(self._count)
        self._count += 1
        fd = files.open_new(path)
        self._open.append(fd)
        return BlobWriter(self._layout, self._write_back, path, fd, algorithm)

    def finish(self, blob: BlobWriter) -> None:
        """No more will be written to it, the last that has begun. It can be committed whenever that is."""
        if len(self._open) > _OPEN:
            blob.sync()
            os.close(self._open.pop())

    def close(self) -> None:
        """Nothing is committed any more."""
        while self._open:
            os.close(self._open.pop())


class BlobWriter:
    """A blob in the making: hashed while it is written, once."""

    def __init__(self, layout: Layout, write_back: WriteBack, temp: Path, fd: int, algorithm: str) -> None:
        import hashlib

        self.algorithm = algorithm
        self._layout = layout
        self._write_back = write_back
        self._is_later = write_back.begin()
        self._is_synced = False
        self.path = temp
        """Where it is meanwhile."""
        self._fd = fd
        self._sum = hashlib.new(algorithm)
        self._early = WriteOut(fd)
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        files.write(self._fd, data)
        self._sum.update(data)
        self.size += len(data)
        if not self._is_later:
            self._early.reached(self.size)

    def digest(self) -> Digest:
        """Of what was written so far."""
        return Digest(self.algorithm, self._sum.hexdigest())

    def begin_writing_out(self) -> None:
        """Have the disk begin with all that was written, if `commit` waits for it: then it waits for less."""
        if not self._is_later:
            files.begin_writing_out(self._fd, 0, 0)

    def sync(self) -> None:
        """Have all of it on the disk, if `commit` would: no descriptor is needed for that any more. Idempotent."""
        if not self._is_later and not self._is_synced:
            os.fchmod(self._fd, SYNCED_MODE)
            files.sync_file(self._fd)
            self._is_synced = True

    def commit(self, media_type: str, expected: Descriptor | None = None, *, named: bool = True) -> Descriptor:
        """Give it its name, synced or with a sync to follow; the name is the caller's to sync if not `named`. Raises
        DigestMismatch if it is not the expected one."""
        digest = self.digest()
        if expected is not None and (expected.size != self.size or expected.digest != digest):
            raise DigestMismatch(expected.digest, f"{digest} of {self.size} bytes, for {expected.size}")
        target = self._layout.blob(digest)
        # There is one from the beginning for the algorithm that everybody uses.
        if not target.parent.is_dir():
            files.make_directory(target.parent)
        if self._is_later:
            if not target.exists():
                files.publish(self.path, target, durable=False)
                self._write_back.published()
        elif not target.exists():
            self.sync()
            files.publish(self.path, target, durable=named)
        elif named:
            # Its maker may not have come to that yet, and the caller is about to rely on it.
            files.sync_directory(target.parent)
        return Descriptor(media_type, digest, self.size)


def _algorithm(expected: Descriptor | None) -> str:
    return expected.digest.algorithm if expected is not None else "sha256"


class WriteOut:
    """Has the disk begin with a file while more of it is written: whoever syncs it then waits for less."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = 0

    def reached(self, size_bytes: int) -> None:
        """So much of it is written."""
        if size_bytes - self._begun >= _WRITE_OUT_BYTES:
            files.begin_writing_out(self._fd, self._begun, size_bytes - self._begun)
            self._begun = size_bytes


class VerifiedReader(io.RawIOBase):
    """A file that hashes what is read from it and raises DigestMismatch at its end if that is not its digest."""

    def __init__(self, fd: int, digest: Digest) -> None:
        import hashlib

        self._fd = fd
        self._digest = digest
        self._sum = hashlib.new(digest.algorithm)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        """For handing it to another process, which then has to verify what it reads."""
        return self._fd

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        count = os.readv(self._fd, [view])
        if count:
            self._sum.update(view[:count])
        elif len(view):
            self._compare()
        return count

    def _compare(self) -> None:
        """Raise DigestMismatch unless what was read is what it is to be."""
        if self._sum.hexdigest() != self._digest.hex:
            raise damaged(self._digest, f"{self._digest.algorithm}:{self._sum.hexdigest()}")

    def read(self, size: int = -1, /) -> bytes:
        """Exactly `size` bytes unless the file ends before, unlike a raw file's read."""
        data = bytearray()
        while size < 0 or len(data) < size:
            chunk = bytearray(1 << 20 if size < 0 else min(1 << 20, size - len(data)))
            count = self.readinto(chunk)
            if not count:
                break
            data += memoryview(chunk)[:count]
        return bytes(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class ReaderBeside(VerifiedReader):
    """The same, hashed by a thread beside, in blocks of some megabytes: for each it waits once for Python's lock."""

    def __init__(self, fd: int, digest: Digest) -> None:
        from nbcontain.store.stage import Stage

        super().__init__(fd, digest)
        self._block = memoryview(bytearray(_BLOCK_BYTES))
        self._filled = 0
        self._is_over = False
        # New memory is slow: the kernel clears each page of it.
        self._waiting: deque[memoryview] = deque()
        self._free: deque[memoryview] = deque()
        self._hashing = Stage(self._sum.update, _BLOCKS, lambda: self._free.append(self._waiting.popleft()))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")[:_BLOCK_BYTES]
        count = os.readv(self._fd, [view])
        if self._filled + count > _BLOCK_BYTES:
            self._hash()
        self._block[self._filled : self._filled + count] = view[:count]
        self._filled += count
        if not count and len(view):
            if not self._is_over:
                self._is_over = True
                self._hash()
                self._hashing.finish()
            self._compare()
        return count

    def _hash(self) -> None:
        """Have the thread take what is there."""
        self._waiting.append(self._block)
        self._hashing.put(self._block[: self._filled])
        self._block = self._free.popleft() if self._free else memoryview(bytearray(_BLOCK_BYTES))
        self._filled = 0

    def close(self) -> None:
        self._hashing.abandon()
        super().close()


def damaged(expected: object, found: object) -> DigestMismatch:
    """What is said of a blob of the store that is not what its name says any more."""
    return DigestMismatch(
        expected, found, why="the blob is damaged here, in the store",
        hint="%nbcontain system check --full --repair sets it aside; then pull, load or build the image again",
    )  # fmt: skip
