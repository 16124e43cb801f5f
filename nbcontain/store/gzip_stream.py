"""A gzip stream (RFC 1952) of blocks that are compressed each by itself, by any number of threads.

No block refers to another one, and each ends at a whole byte; so they can be made at the same time, and what comes of
one depends on nothing but what is in it. What cannot be compressed is stored (RFC 1951, 3.2.4): archives, pictures,
models and whatever else is compressed or random already would only cost time. A sample of the block tells.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

_LEVEL = 1
_RAW = -15
"""zlib's word for a window of 32 KiB and no wrapping."""
HEAD = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
"""No name, no time, an unknown system."""
_END = b"\x03\x00"
"""A last block, of nothing."""
_STORED_BYTES = 0xFFFF
_SAMPLE_BYTES = 1024
_STRIDE_BYTES = 62_003
"""Odd, so that what repeats in a block at regular places does not decide for all of it."""
_WORTH = 0.97
_BEGINNING_BYTES = 8
"""Of a block, by itself: ISA-L (up to 2.32 at least) hashes the third byte of what it begins with by the address of its
own state, and what comes of a block would now and then be another one. It does not where there are no more than 16
bytes, and goes on from them as it should; with fewer than 4 it has not begun."""
_SMALL_BYTES = 256 << 10
"""Less than that is compressed whatever it is: it takes no time."""

Block = bytes | bytearray | memoryview


class Packer:
    """Compresses blocks. For one thread."""

    def __init__(self) -> None:
        tools: Any = _tools()
        self._begin: Callable[[], Any] = partial(tools.compressobj, _LEVEL, tools.DEFLATED, _RAW)
        self._deflate = self._begin()
        self._sync_flush, self._full_flush = tools.Z_SYNC_FLUSH, tools.Z_FULL_FLUSH

    def pack(self, block: Block) -> tuple[bytes, ...]:
        """What it becomes in the stream, in pieces."""
        if not block:
            return ()
        if not self._is_worth_it(block):
            return (_stored(block),)
        return self._packed(self._deflate, block)

    def _packed(self, deflate: Any, block: Block) -> tuple[bytes, ...]:
        """What follows refers to nothing before its end, and is not different for what was before."""
        view = memoryview(block)
        return (
            deflate.compress(view[:_BEGINNING_BYTES]), deflate.flush(self._sync_flush),
            deflate.compress(view[_BEGINNING_BYTES:]), deflate.flush(self._full_flush),
        )  # fmt: skip

    def _is_worth_it(self, block: Block) -> bool:
        if len(block) < _SMALL_BYTES:
            return True
        view = memoryview(block)
        sample = b"".join(view[at : at + _SAMPLE_BYTES] for at in range(0, len(view), _STRIDE_BYTES))
        return sum(map(len, self._packed(self._begin(), sample))) < _WORTH * len(sample)


class Tally:
    """What a stream's end says of all that is in it."""

    def __init__(self) -> None:
        self._crc32: Callable[[Block, int], int] = _tools().crc32
        self._checksum = self._size = 0

    def add(self, block: Block) -> None:
        """The next block."""
        self._checksum = self._crc32(block, self._checksum)
        self._size += len(block)

    def end(self) -> bytes:
        """The end of the stream."""
        return _END + self._checksum.to_bytes(4, "little") + (self._size & 0xFFFF_FFFF).to_bytes(4, "little")


def _stored(block: Block) -> bytes:
    # A copy: whose block it is may write to it as soon as it is compressed, and this is written later.
    view = memoryview(block)
    pieces: list[bytes | memoryview] = []
    for at in range(0, len(view), _STORED_BYTES):
        piece = view[at : at + _STORED_BYTES]
        size = len(piece)
        pieces += (b"\0" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little"), piece)
    return b"".join(pieces)


def _tools() -> Any:
    """ISA-L's module, or where there is none zlib, which is like it."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib
