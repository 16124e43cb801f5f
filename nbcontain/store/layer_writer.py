"""A layer blob in the making: a tar goes in, what comes out is gzip, and both are hashed on the way.

Compressed once, when it is made, so that its digest is the same here and in every registry, and a push sends what
lies on the disk. gzip and not zstd, since docker before 23 reads no other. By ISA-L, level 1: six times as fast as
zlib's level 1 for the same size; what cannot be compressed is stored (`gzip_stream`). The same tar gives the same
bytes, on one machine: the compressor is fed blocks of one size whatever pieces the tar comes in, since ISA-L's output
depends on them; and the header has no name and no time.

A layer of more than a block is worked on by three: whoever writes reads and hashes, one thread compresses, and one
hashes and writes what comes of that; by a fourth, if the tar also goes elsewhere. Each gives up Python's lock
meanwhile, so all processors have work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Layer
from nbcontain.store.blobs import Blobs, BlobWriter
from nbcontain.store.gzip_stream import GzipStream
from nbcontain.store.stage import Block, Stage

_BLOCK_BYTES = 1 << 20
_AHEAD = 4
"""So many blocks may wait for a thread."""

Copy = Callable[[Block], object]


@contextmanager
def layer_writer(blobs: Blobs, copy: Copy | None = None) -> Iterator[LayerWriter]:
    """Something to write a layer's tar to; what is not committed leaves nothing behind.

    `copy` gets all of the tar too, piece by piece, on one thread at a time.
    """
    with blobs.writer() as blob, LayerWriter(blob, copy) as writer:
        yield writer


class LayerWriter:
    """The tar of one layer, on its way to being a blob. Written by one thread; a context, for it may have threads."""

    def __init__(self, blob: BlobWriter, copy: Copy | None = None) -> None:
        self._blob = blob
        self._copy = copy
        self._copying: Stage | None = None
        self._sum = hashlib.sha256()
        self._compressor = GzipStream()
        self._block = bytearray()
        self._filled = 0
        self._compressing: Stage | None = None
        self._writing: Stage | None = None
        self._is_whole = False

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for stage in (self._compressing, self._writing, self._copying):
            if stage is not None:
                stage.abandon()

    def write(self, data: bytes | memoryview) -> None:
        """Some more of the tar, which may change as soon as this has returned. Raises what writing the blob raises."""
        view = memoryview(data)
        while view:
            if not self._filled and len(view) >= _BLOCK_BYTES and isinstance(data, bytes):
                self._take(view[:_BLOCK_BYTES])
                view = view[_BLOCK_BYTES:]
                continue
            count = min(len(view), _BLOCK_BYTES - self._filled)
            self._room()[:count] = view[:count]
            self._fill(count)
            view = view[count:]

    def read_from(self, fd: int, size_bytes: int | None = None) -> int:
        """The same, of all that there is to be read from a pipe, or as much of a file; how much it was."""
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
            self._take(memoryview(self._block)[: self._filled])
        if self._compressing is not None and self._writing is not None:
            self._compressing.finish()
            self._writing.finish()
        if self._copying is not None:
            self._copying.finish()
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
        if not self._block:
            self._block = bytearray(_BLOCK_BYTES)
        return memoryview(self._block)[self._filled :]

    def _fill(self, count: int) -> None:
        self._filled += count
        if self._filled == _BLOCK_BYTES:
            # It belongs to the threads from here on.
            block, self._block, self._filled = self._block, bytearray(), 0
            self._take(block)

    def _take(self, block: Block) -> None:
        """A block that nobody changes any more."""
        if self._compressing is None:
            if len(block) < _BLOCK_BYTES:
                self._sum.update(block)
                self._blob.write(self._compressor.compress(block))
                if self._copy is not None:
                    self._copy(block)
                return
            if self._copy is not None:
                self._copying = Stage(self._copy, _AHEAD)
            self._writing = Stage(self._blob.write, _AHEAD)
            self._compressing = Stage(self._compress, _AHEAD)
        # Before it is hashed here: the other threads have something to do meanwhile.
        if self._copying is not None:
            self._copying.put(block)
        self._compressing.put(block)
        self._sum.update(block)

    def _compress(self, block: Block) -> None:
        if (packed := self._compressor.compress(block)) and self._writing is not None:
            self._writing.put(packed)
