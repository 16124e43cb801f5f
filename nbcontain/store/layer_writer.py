"""A layer blob in the making: a tar goes in, what comes out is gzip, and both are hashed on the way.

Compressed once, when it is made, so that its digest is the same here and in every registry, and a push sends what
lies on the disk. gzip and not zstd, since docker before 23 reads no other. By ISA-L, level 1: six times as fast as
zlib's level 1 for the same size; what cannot be compressed is stored (`gzip_stream`). The same tar gives the same
bytes, on one machine: the compressor is fed blocks of one size whatever pieces the tar comes in, since ISA-L's output
depends on them; and the header has no name and no time.

A layer of more than a block is worked on by three: whoever writes reads and hashes, one thread compresses, and one
hashes and writes what comes of that. Each gives up Python's lock meanwhile, so all processors have work. A worker that
unpacks the tar at the same time reads it where it lies: the blocks are the slots of its ring. Where the tar is a part
of a file, the compressor reads it there once more, and nobody waits for it until the end.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from nbcontain.errors import BadArchive
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Layer
from nbcontain.store.blobs import Blobs, BlobWriter
from nbcontain.store.gzip_stream import GzipStream
from nbcontain.store.ring import SLOT_BYTES, Sender
from nbcontain.store.stage import Block, Stage
from nbcontain.values import dataclass

BLOCK_BYTES = 1 << 20
_BLOCKS = 8
"""So many blocks of a layer are in memory."""
_AHEAD = 4
"""So many compressed ones may wait to be written."""
_ALL = 0
"""However many there are (queue.Queue)."""


class Slots(Protocol):
    """Memory for blocks, one after the other and round again: a ring (`Sender`), or what nobody else reads."""

    slots: int

    def slot(self) -> memoryview:
        """The next one, to be filled from its beginning."""

    def send(self, count: int) -> None:
        """So many bytes of it are there."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where in a file a tar begins. The file stays open for as long as a layer is made of it."""

    fd: int
    offset: int


@contextmanager
def layer_writer(blobs: Blobs, ring: Sender | None = None) -> Iterator[LayerWriter]:
    """Something to write a layer's tar to; what is not committed leaves nothing behind.

    Who reads the `ring`, whose slots are of BLOCK_BYTES, gets all of the tar too.
    """
    with blobs.writer() as blob, LayerWriter(blob, ring) as writer:
        yield writer


def ring_for(size_bytes: int) -> Sender:
    """A ring for a layer whose tar has about so many bytes."""
    return Sender(BLOCK_BYTES, max(1, min(_BLOCKS, -(-size_bytes // BLOCK_BYTES))))


class LayerWriter:
    """The tar of one layer, on its way to being a blob. Written by one thread; a context, for it may have threads."""

    def __init__(self, blob: BlobWriter, ring: Slots | None = None) -> None:
        self._blob = blob
        self._sum = hashlib.sha256()
        self._compressor = GzipStream()
        self._blocks: Slots = ring or Blocks()
        self._block_bytes = BLOCK_BYTES
        self._block: memoryview | None = None
        self._filled = 0
        self._free = threading.Semaphore(self._blocks.slots - 1)
        """Blocks that the compressor does not need any more, without the first, which nobody waits for."""
        self._compressing: Stage[Any] | None = None
        self._writing: Stage[Block] | None = None
        self._is_whole = False

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._block = None
        for stage in (self._compressing, self._writing):
            if stage is not None:
                stage.abandon()

    def write(self, data: bytes | memoryview) -> None:
        """Some more of the tar, which may change as soon as this has returned. Raises what writing the blob raises."""
        view = memoryview(data)
        while view:
            count = min(len(view), self._block_bytes - self._filled)
            self._room()[:count] = view[:count]
            self._fill(count)
            view = view[count:]

    def read(self, readinto: Callable[[memoryview], int]) -> int:
        """Some more, straight to where it is worked on; how much it was."""
        if count := readinto(self._room()):
            self._fill(count)
        return count

    def read_from(self, fd: int, size_bytes: int | None = None) -> int:
        """All that there is to be read from a pipe, or as much of a file; how much it was."""
        done = 0
        while count := os.readv(fd, [self._room()[: None if size_bytes is None else size_bytes - done]]):
            self._fill(count)
            done += count
        return done

    def finish(self) -> None:
        """That was all of the tar: compress and write what is left. Idempotent."""
        if self._is_whole:
            return
        self._is_whole = True
        if self._filled:
            self._take()
        if self._compressing is not None and self._writing is not None:
            self._compressing.finish()
            self._writing.finish()
        self._blob.write(self._compressor.finish())

    def commit(self) -> Layer:
        """Sync it and give it its name."""
        self.finish()
        return Layer(self._blob.commit(LAYER_TAR_GZIP), self.diff_id)

    @property
    def diff_id(self) -> DiffID:
        """Of what was written, once that is finished."""
        return DiffID(Digest("sha256", self._sum.hexdigest()))

    def _room(self) -> memoryview:
        """Where the next bytes of the tar go."""
        if self._block is None:
            self._wait()
            self._block = self._blocks.slot()
        return self._block[self._filled : self._block_bytes]

    def _fill(self, count: int) -> None:
        self._filled += count
        if self._filled == self._block_bytes:
            self._take()

    def _take(self) -> None:
        """The block is whole: it belongs to the threads and to the worker from here on."""
        assert self._block is not None
        count, block = self._filled, self._block[: self._filled]
        self._block, self._filled = None, 0
        self._blocks.send(count)
        # Before it is hashed here: the other threads have something to do meanwhile.
        self._pack(block)
        self._sum.update(block)

    def _wait(self) -> None:
        """Until there is a block that nobody here needs any more."""
        if self._compressing is not None:
            self._free.acquire()

    def _pack(self, block: memoryview) -> None:
        """Have it compressed."""
        if self._compressing is None:
            if len(block) < BLOCK_BYTES:
                self._blob.write(self._compressor.compress(block))
                return
            self._writing = Stage(self._blob.write, _AHEAD)
            self._compressing = Stage(self._compress, _AHEAD, self._free.release)
        self._compressing.put(block)

    def _compress(self, block: memoryview) -> None:
        if (packed := self._compressor.compress(block)) and self._writing is not None:
            self._writing.put(packed)


class PartWriter(LayerWriter):
    """The same of a tar that is a part of a file, written to this from there: what is compressed is read once more.

    So whoever unpacks it meanwhile has all of it as quickly as it can be read. Both have read the same, or it is
    refused: CRC-32 tells, which gzip has to have anyway.
    """

    def __init__(self, blob: BlobWriter, ring: Slots, part: Part) -> None:
        super().__init__(blob, ring)
        self._block_bytes = SLOT_BYTES
        self._part = part
        self._given = self._read = self._check = 0
        self._buffer = memoryview(bytearray(BLOCK_BYTES))
        self._writing = Stage(self._blob.write, _AHEAD)
        self._compressing = self._reading = Stage(self._compress_next, _ALL)

    def finish(self) -> None:
        """As there. Raises BadArchive where the file was changed meanwhile."""
        if self._is_whole:
            return
        if self._filled:
            self._take()
        if self._read > self._given:
            self._give(self._read - self._given)
        super().finish()
        if self._check != self._compressor.checksum:
            raise _changed()

    def _wait(self) -> None:
        """The ring's reader is all there is to wait for."""

    def _pack(self, block: memoryview) -> None:
        self._check = self._compressor.crc32(block, self._check)
        self._read += len(block)
        while self._read - self._given >= BLOCK_BYTES:
            self._give(BLOCK_BYTES)

    def _give(self, count: int) -> None:
        """Have so many bytes more compressed."""
        self._reading.put((self._part.offset + self._given, count))
        self._given += count

    def _compress_next(self, span: tuple[int, int]) -> None:
        """The compressor's thread: so many bytes from there on."""
        at, count = span
        block = self._buffer[:count]
        done = 0
        while done < count:
            got = os.preadv(self._part.fd, [block[done:]], at + done)
            if not got:
                raise _changed()
            done += got
        self._compress(block)


def _changed() -> BadArchive:
    return BadArchive("the archive was changed while it was read", hint="Try again when nobody writes to it.")


class Blocks:
    """Blocks in memory of their own, which nobody else reads."""

    slots = _BLOCKS

    def __init__(self) -> None:
        self._view = memoryview(mmap.mmap(-1, _BLOCKS * BLOCK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._next = 0

    def slot(self) -> memoryview:
        """The next one, to be filled from its beginning."""
        return self._view[self._next : self._next + BLOCK_BYTES]

    def send(self, count: int) -> None:
        """So many bytes of it are there."""
        self._next = (self._next + BLOCK_BYTES) % len(self._view)
