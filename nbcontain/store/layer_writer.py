"""A layer blob in the making: a tar goes in, what comes out is gzip, and both are hashed on the way.

Compressed once, when it is made, so that its digest is the same here and in every registry, and a push sends what
lies on the disk. gzip and not zstd, since docker before 23 reads no other. By ISA-L, level 1: six times as fast as
zlib's level 1 for the same size. The same tar gives the same bytes, on one machine: the compressor is fed blocks of
one size whatever pieces the tar comes in, since ISA-L's output depends on them; and the header has no name and no time.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Layer
from nbcontain.store.blobs import Blobs, BlobWriter

_BLOCK_BYTES = 1 << 20
_LEVEL = 1
_GZIP = 31
"""zlib's word for a window of 32 KiB in gzip's wrapping."""


@contextmanager
def layer_writer(blobs: Blobs) -> Iterator[LayerWriter]:
    """Something to write a layer's tar to; what is not committed leaves nothing behind."""
    with blobs.writer() as writer:
        yield LayerWriter(writer)


class LayerWriter:
    """The tar of one layer, on its way to being a blob."""

    def __init__(self, blob: BlobWriter) -> None:
        self._blob = blob
        self._sum = hashlib.sha256()
        self._compressor = _compressor()
        self._waiting = bytearray()
        self.size_bytes = 0
        """Of the tar, so far."""

    def write(self, data: bytes | memoryview) -> None:
        self._sum.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        if self._waiting or len(view) < _BLOCK_BYTES:
            taken = min(len(view), _BLOCK_BYTES - len(self._waiting))
            self._waiting += view[:taken]
            view = view[taken:]
            if len(self._waiting) < _BLOCK_BYTES:
                return
            self._compress(self._waiting)
            self._waiting = bytearray()
        while len(view) >= _BLOCK_BYTES:
            self._compress(view[:_BLOCK_BYTES])
            view = view[_BLOCK_BYTES:]
        self._waiting += view

    def commit(self) -> Layer:
        """Sync it and give it its name."""
        if self._waiting:
            self._compress(self._waiting)
        self._blob.write(self._compressor.flush())
        descriptor = self._blob.commit(LAYER_TAR_GZIP)
        return Layer(descriptor, DiffID(Digest("sha256", self._sum.hexdigest())))

    def _compress(self, block: bytearray | memoryview) -> None:
        if packed := self._compressor.compress(block):
            self._blob.write(packed)


def _compressor() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
