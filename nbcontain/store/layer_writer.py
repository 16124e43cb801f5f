"""A layer blob in the making: a tar goes in, what comes out is gzip if nothing else is asked for, and both are hashed.

Compressed once, when it is made, so that its digest is the same here and in every registry, and a push sends what
lies on the disk. gzip unless somebody asks for another form (`layer_forms`), since docker before 23 reads no zstd. By
ISA-L, level 1: six times as fast as zlib's level 1 for the same size; what cannot be compressed is stored
(`gzip_stream`). The same tar gives the same bytes, on one machine, whatever pieces it comes in and however many
processors there are: it is compressed in blocks of one size, each by itself; and the header has no name and no time.

A layer of more than a block is worked on by several: whoever writes reads and hashes, some threads compress
(`packing`), and one hashes and writes what comes of that. Each gives up Python's lock meanwhile, so all processors have
work. A worker that unpacks the tar at the same time reads it where it lies: the blocks are the slots of its ring.
What is to stay a plain tar is written by whoever reads it, and hashed once: it is its own blob.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import Layer
from nbcontain.store.blobs import Blobs, BlobWriter
from nbcontain.store.layer_forms import GZIP, Form, Packs
from nbcontain.store.packing import Packers, Packing
from nbcontain.store.ring import Sender
from nbcontain.store.stage import Stage

BLOCK_BYTES = 1 << 20
_BLOCKS = 8
"""So many blocks of a layer are in memory."""
_ALL = 0
"""However many there are (queue.Queue)."""


class Slots(Protocol):
    """Memory for blocks, one after the other and round again: a ring (`Sender`), or what nobody else reads."""

    slots: int

    def slot(self) -> memoryview:
        """The next one, to be filled from its beginning."""

    def send(self, count: int) -> None:
        """So many bytes of it are there."""


@contextmanager
def layer_writer(
    blobs: Blobs, ring: Sender | None = None, form: Form = GZIP, algorithm: str = "sha256"
) -> Iterator[LayerWriter]:
    """Something to write a layer's tar to, whose diff ID is by this algorithm; what is not committed leaves nothing
    behind. Who reads the `ring`, whose slots are of BLOCK_BYTES, gets all of the tar too.
    """
    with blobs.writer() as blob, LayerWriter(blob, ring, form, algorithm) as writer:
        yield writer


def ring_for(size_bytes: int) -> Sender:
    """A ring for a layer whose tar has about so many bytes."""
    return Sender(BLOCK_BYTES, max(1, min(_BLOCKS, -(-size_bytes // BLOCK_BYTES))))


class LayerWriter:
    """The tar of one layer, on its way to being a blob. Written by one thread; a context, for it may have threads."""

    def __init__(
        self, blob: BlobWriter, ring: Slots | None = None, form: Form = GZIP, algorithm: str = "sha256"
    ) -> None:
        self._blob = blob
        self._form = form
        self._algorithm = algorithm
        # A plain tar is its blob, which is hashed anyway.
        is_hashed = form.packer is None and blob.algorithm == algorithm
        self._sum = None if is_hashed else hashlib.new(algorithm)
        self._tally = form.tally()
        self._blocks: Slots = ring or Blocks()
        self._block: memoryview | None = None
        self._filled = 0
        self._free = threading.Semaphore(self._blocks.slots - 1)
        """Blocks that nobody here needs any more, without the first, which nobody waits for."""
        self._packers: Packers | None = None
        self._writing: Stage[Packing] | None = None
        self._is_whole = False
        self._waits_for_head = True

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._block = None
        if self._packers is not None and self._writing is not None:
            self._packers.abandon()
            self._writing.abandon()

    def write(self, data: bytes | memoryview) -> None:
        """Some more of the tar, which may change as soon as this has returned. Raises what writing the blob raises."""
        view = memoryview(data)
        while view:
            count = min(len(view), BLOCK_BYTES - self._filled)
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
        if self._packers is not None and self._writing is not None:
            self._packers.finish()
            self._writing.finish()
        self._blob.write(self._head() + self._tally.end())

    def commit(self) -> Layer:
        """Sync it and give it its name."""
        self.finish()
        return Layer(self._blob.commit(self._form.media_type), self.diff_id)

    @property
    def diff_id(self) -> DiffID:
        """Of what was written, once that is finished."""
        return DiffID(Digest(self._algorithm, self._sum.hexdigest()) if self._sum else self._blob.digest())

    def _room(self) -> memoryview:
        """Where the next bytes of the tar go."""
        if self._block is None:
            self._wait()
            self._block = self._blocks.slot()
        return self._block[self._filled : BLOCK_BYTES]

    def _fill(self, count: int) -> None:
        self._filled += count
        if self._filled == BLOCK_BYTES:
            self._take()

    def _take(self) -> None:
        """The block is whole: it belongs to the threads and to the worker from here on."""
        assert self._block is not None
        count, block = self._filled, self._block[: self._filled]
        self._block, self._filled = None, 0
        self._blocks.send(count)
        if self._form.packer is None:
            self._blob.write(block)
        else:
            self._tally.add(block)
            # Before it is hashed here: the other threads have something to do meanwhile.
            self._pack(block, self._form.packer)
        if self._sum is not None:
            self._sum.update(block)

    def _wait(self) -> None:
        """Until there is a block that nobody here needs any more."""
        if self._packers is not None:
            self._free.acquire()

    def _pack(self, block: memoryview, packer: Callable[[], Packs]) -> None:
        """Have it compressed."""
        if self._packers is None and len(block) < BLOCK_BYTES:
            self._blob.write(b"".join((self._head(), *packer().pack(block))))
            return
        if self._packers is None or self._writing is None:
            self._blob.write(self._head())
            self._packers = Packers(packer)
            self._writing = Stage(self._write, _ALL, self._taken)
        self._writing.put(self._packers.put(block))

    def _write(self, item: Packing) -> None:
        for part in item.result():
            self._blob.write(part)

    def _taken(self) -> None:
        """One more is written, or not wanted: in their order, which that of the compressors need not be."""
        assert self._packers is not None
        self._packers.taken()
        self._free.release()

    def _head(self) -> bytes:
        """What comes first of all, once."""
        head, self._waits_for_head = self._form.head if self._waits_for_head else b"", False
        return head


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
