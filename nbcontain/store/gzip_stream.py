"""A gzip stream (RFC 1952) in the making, in which what cannot be compressed is stored (RFC 1951, 3.2.4).

Archives, pictures, models and whatever else is compressed or random already would only cost time. Whether a block is
such is told by a sample of it, unless the block before became much smaller: so the same blocks give the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

_LEVEL = 1
_RAW = -15
"""zlib's word for a window of 32 KiB and no wrapping."""
_HEAD = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
"""No name, no time, an unknown system."""
_STORED_BYTES = 0xFFFF
_SAMPLE_BYTES = 2048
_STRIDE_BYTES = 62_003
"""Odd, so that what repeats in a block at regular places does not decide for all of it."""
_WORTH = 0.97
_WELL = 0.8
_SMALL_BYTES = 256 << 10
"""Less than that is compressed whatever it is: it takes no time."""

Block = bytes | bytearray | memoryview


class GzipStream:
    """Takes blocks and gives what is to be written of them. Its output depends on where the blocks begin and end."""

    def __init__(self) -> None:
        self._deflate, self._compressed, self.crc32, self._full_flush = _tools()
        self.checksum = 0
        """CRC-32 of what was compressed so far."""
        self._size = 0
        self._is_pending = False
        """Something is in the compressor, or was since it was last flushed."""
        self._head = _HEAD
        self._went_well = False

    def compress(self, block: Block) -> bytes:
        """One more block. May give nothing yet."""
        head, self._head = self._head, b""
        self.checksum = self.crc32(block, self.checksum)
        self._size += len(block)
        if not self._went_well and not self._is_worth_it(block):
            # What follows refers to nothing before this point, where the decompressor knows more than the compressor.
            flushed = self._deflate.flush(self._full_flush) if self._is_pending else b""
            self._is_pending = False
            return head + flushed + _stored(block)
        self._is_pending = True
        packed = bytes(self._deflate.compress(block))
        self._went_well = len(packed) < _WELL * len(block)
        return head + packed

    def finish(self) -> bytes:
        """The rest."""
        tail = self.checksum.to_bytes(4, "little") + (self._size & 0xFFFF_FFFF).to_bytes(4, "little")
        return self._head + bytes(self._deflate.flush()) + tail

    def _is_worth_it(self, block: Block) -> bool:
        if len(block) < _SMALL_BYTES:
            return True
        view = memoryview(block)
        sample = b"".join(view[at : at + _SAMPLE_BYTES] for at in range(0, len(view), _STRIDE_BYTES))
        return self._compressed(sample) < _WORTH * len(sample)


def _stored(block: Block) -> bytes:
    # A copy: whose block it is may write to it as soon as it is compressed, and this is written later.
    view = memoryview(block)
    pieces: list[bytes | memoryview] = []
    for at in range(0, len(view), _STORED_BYTES):
        piece = view[at : at + _STORED_BYTES]
        size = len(piece)
        pieces += (b"\0" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little"), piece)
    return b"".join(pieces)


def _tools() -> tuple[Any, Callable[[bytes], int], Callable[[Block, int], int], int]:
    """A compressor, the size that it makes of a sample, CRC-32, and its word for "refer to nothing before this"."""
    try:
        from isal import isal_zlib
    except ImportError:
        return (
            zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW),
            lambda sample: len(zlib.compress(sample, _LEVEL)),
            zlib.crc32,
            zlib.Z_FULL_FLUSH,
        )
    return (
        isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW),
        lambda sample: len(isal_zlib.compress(sample, _LEVEL)),
        isal_zlib.crc32,
        isal_zlib.Z_FULL_FLUSH,
    )
